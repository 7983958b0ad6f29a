"""Clouds: a level pattern over everything, seen from below."""

import numpy as np

from data_prep.synthetic.noise import fractal_noise

_SIDE = 64  # of the pattern, which repeats
_SCALE = 16  # cells of it that lie between overhead and a slope of one
_LIFT = 0.25  # keeps the rows at the horizon from running through it too fast


def gather(rng: np.random.Generator) -> np.ndarray:
  """How thick the clouds are, from 0 to 1: float32 [64, 64], without a seam."""
  return np.clip(fractal_noise(rng, _SIDE, 4, 4) * 4 - 1.8, 0, 1).astype(np.float32)


def overhead(
  clouds: np.ndarray, ray_x: np.ndarray, ray_y: np.ndarray, up: np.ndarray
) -> np.ndarray:
  """What rays that rise meet of the clouds, which hang too high for a walk to matter.

  Args:
    clouds: from `gather`.
    ray_x, ray_y: directions of the columns in the plane, [T, W].
    up: slopes of the rows, [H], not negative.

  Returns:
    Thickness, float32 [T, H, W].
  """
  reach = (_SCALE / (up + _LIFT))[:, np.newaxis]
  row, column = (
    np.floor(ray[:, np.newaxis] * reach).astype(np.int64) % _SIDE for ray in (ray_y, ray_x)
  )
  return clouds[row, column]
