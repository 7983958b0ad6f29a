"""Perfect mazes, and walks through them that turn smoothly and come back."""

import dataclasses

import numpy as np

from data_prep.synthetic.directions import direction

CELLS = 4  # a side
BLOCKS = 2 * CELLS + 1  # a side: cells are at odd rows and columns, walls or doors between them
# A quarter circle of radius 1 takes 11 frames and a straight path of length 2 takes 14. As 22/7 is
# pi to 0.04 %, the speed is the same, and each path between two doors takes whole frames.
_TURN_FRAMES = 11
_STRAIGHT_FRAMES = 14
_FULL_TURN = 4 * _TURN_FRAMES
_QUARTERS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # (row, column) of headings 0, 1/4, 1/2, 3/4


@dataclasses.dataclass(frozen=True)
class Poses:
  """Position (blocks) and heading (turns) of the camera in each frame, float64 [T] each."""

  x: np.ndarray
  y: np.ndarray
  heading: np.ndarray

  def frames(self, selected: slice) -> 'Poses':
    """Returns the poses of some frames."""
    return Poses(self.x[selected], self.y[selected], self.heading[selected])


def carve(rng: np.random.Generator) -> np.ndarray:
  """Carves a maze with exactly one path between any two cells, by depth-first search.

  Returns:
    True for wall blocks, bool [9, 9].
  """
  wall = np.ones((BLOCKS, BLOCKS), bool)
  trail = [tuple(int(2 * place + 1) for place in rng.integers(CELLS, size=2))]
  wall[trail[0]] = False
  while trail:
    row, column = trail[-1]
    closed = [
      (down, right)
      for down, right in _QUARTERS
      if 0 < row + 2 * down < BLOCKS
      and 0 < column + 2 * right < BLOCKS
      and wall[row + 2 * down, column + 2 * right]
    ]
    if not closed:
      trail.pop()
      continue
    down, right = closed[rng.integers(len(closed))]
    wall[row + down, column + right] = False
    wall[row + 2 * down, column + 2 * right] = False
    trail.append((row + 2 * down, column + 2 * right))
  return wall


def walk(rng: np.random.Generator, wall: np.ndarray, frames: int) -> Poses:
  """Walks from door to door along random paths; turns back only at dead ends.

  Passing a door twice in the same direction gives exactly the same pose both times.

  Args:
    rng: draws the first door and the turns.
    wall: the maze, bool [9, 9].
    frames: number of poses.
  """
  doors = [(row, column) for row, column in np.argwhere(~wall).tolist() if (row + column) % 2]
  row, column = doors[rng.integers(len(doors))]
  quarter = int(rng.integers(2)) * 2 + (column % 2)  # through the door, not along it
  pieces, made = [], 0
  while made < frames:
    down, right = _QUARTERS[quarter]
    cell = row + down, column + right
    ways = [
      turn
      for turn in (-1, 0, 1)
      if not wall[tuple(np.add(cell, _QUARTERS[(quarter + turn) % 4]).tolist())]
    ]
    turn = ways[rng.integers(len(ways))] if ways else 2
    pieces.append(_cross_cell(row, column, quarter, turn))
    made += pieces[-1].shape[1]
    quarter = (quarter + turn) % 4
    row, column = np.add(cell, _QUARTERS[quarter]).tolist()
  return Poses(*np.concatenate(pieces, axis=1)[:, :frames])


def _cross_cell(row: int, column: int, quarter: int, turn: int) -> np.ndarray:
  """Returns x, y, heading [3, frames] from a door at (row, column) up to the next door.

  `turn` counts quarters to the right: -1 left, 0 straight on, 1 right, 2 back.
  """
  down, right = _QUARTERS[quarter]
  heading = quarter * _TURN_FRAMES
  x, y = column + 0.5, row + 0.5
  if turn == 0:
    along = np.arange(_STRAIGHT_FRAMES) * (2 / _STRAIGHT_FRAMES)
    return _piece(x + right * along, y + down * along, heading)
  if turn == 2:
    along = np.arange(_STRAIGHT_FRAMES // 2) * (2 / _STRAIGHT_FRAMES)
    forth = _piece(x + right * along, y + down * along, heading)
    around = _piece(x + right, y + down, heading + np.arange(2 * _TURN_FRAMES))
    back = _piece(x + right * (1 - along), y + down * (1 - along), heading + 2 * _TURN_FRAMES)
    return np.concatenate([forth, around, back], axis=1)
  # The centre of the circle is one block beside the door.
  headings = heading + turn * np.arange(_TURN_FRAMES)
  cos, sin = direction(headings / _FULL_TURN)
  return _piece(x + turn * (sin - down), y + turn * (right - cos), headings)


def _piece(x: np.ndarray | float, y: np.ndarray | float, heading: np.ndarray | int) -> np.ndarray:
  return np.stack(np.broadcast_arrays(x, y, heading / _FULL_TURN))
