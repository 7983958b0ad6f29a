"""Rays of a camera's columns over a grid of square cells, and the cell borders that they cross."""

from collections.abc import Iterator
import dataclasses

import numpy as np

from data_prep.synthetic.directions import direction

_PARALLEL = 1e-9  # rays closer than this to a grid line never cross one


@dataclasses.dataclass(frozen=True)
class Crossing:
  """Crossing of a cell border by each ray; arrays have the shape of the rays.

  Attributes:
    row, column: the cell that the ray enters, int64.
    depth: distance of the crossing, in lengths of the ray's direction.
    on_row: whether the border runs between two rows, not between two columns.
  """

  row: np.ndarray
  column: np.ndarray
  depth: np.ndarray
  on_row: np.ndarray


def screen(count: int, tangent: float) -> np.ndarray:
  """Returns the centres of `count` pixels of a view from -tangent to tangent, [count]."""
  return tangent * ((2 * np.arange(count) + 1) / count - 1)


def column_rays(heading: np.ndarray, across: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the directions of a camera's columns in the plane, with length 1 along its axis.

  Args:
    heading: in turns, [T]; 0 looks along x (columns), 1/4 along y (rows, downwards).
    across: `screen` of the columns, [W].

  Returns:
    x and y, [T, W] each.
  """
  cos, sin = (part[:, np.newaxis] for part in direction(heading))
  return cos - across * sin, sin + across * cos


def crossings(
  x: np.ndarray, y: np.ndarray, ray_x: np.ndarray, ray_y: np.ndarray, count: int
) -> Iterator[Crossing]:
  """Yields the first `count` borders that rays cross, nearest first; cells are (row, column).

  Args:
    x, y: origins of the rays, broadcastable to their shape.
    ray_x, ray_y: their directions.
  """
  column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
  pitch_x, pitch_y = (1 / np.maximum(np.abs(ray), _PARALLEL) for ray in (ray_x, ray_y))
  next_x = np.where(ray_x < 0, x - column, column + 1 - x) * pitch_x
  next_y = np.where(ray_y < 0, y - row, row + 1 - y) * pitch_y
  step_x, step_y = (np.where(ray < 0, -1, 1) for ray in (ray_x, ray_y))
  for _ in range(count):
    on_row = next_y < next_x
    depth = np.where(on_row, next_y, next_x)
    column, row = column + step_x * ~on_row, row + step_y * on_row
    next_x, next_y = next_x + pitch_x * ~on_row, next_y + pitch_y * on_row
    yield Crossing(row, column, depth, on_row)
