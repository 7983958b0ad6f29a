"""Patches of pictures as vectors, for the sliced Wasserstein distance (Karras et al., 2018)."""

import numpy as np

NAME = 'patches-7x7'
SIDE = 7
PER_PICTURE = 16


def patches(images: np.ndarray, seed: int = 0) -> np.ndarray:
  """Cuts patches from random places: uint8 [N, H, W, C] -> float32 [N * 16, 49 * C] in [-1, 1]."""
  rng = np.random.default_rng(seed)
  count, height, width, _ = images.shape
  side = min(SIDE, height, width)
  rows = rng.integers(0, height - side + 1, (count, PER_PICTURE))
  columns = rng.integers(0, width - side + 1, (count, PER_PICTURE))
  offsets = np.arange(side)
  cut = images[
    np.arange(count)[:, None, None, None],
    (rows[..., None] + offsets)[..., None],
    (columns[..., None] + offsets)[..., None, :],
  ]
  return cut.reshape(count * PER_PICTURE, -1).astype(np.float32) / 127.5 - 1
