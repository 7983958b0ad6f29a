"""Tiles of photographs."""

import numpy as np

RULE = 'non-overlapping tiles from the upper left corner, rest dropped; no resampling'


def cut_tiles(image: np.ndarray, size: int) -> np.ndarray:
  """Cuts a picture [H, W, 3] into all whole tiles, row by row: [N, size, size, 3]."""
  rows, columns = image.shape[0] // size, image.shape[1] // size
  image = image[: rows * size, : columns * size]
  tiles = image.reshape(rows, size, columns, size, 3).swapaxes(1, 2)
  return tiles.reshape(rows * columns, size, size, 3)
