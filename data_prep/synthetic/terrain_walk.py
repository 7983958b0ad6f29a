"""Walks over a terrain, from goal to goal."""

import dataclasses

import numpy as np

from data_prep.synthetic.directions import direction
from data_prep.synthetic.draws import between
from data_prep.synthetic.terrain import SIDE, Terrain

SPEED = 0.215  # blocks per frame; walking speed of Minecraft at 20 frames per second
_EYE = 1.62  # blocks above the ground, smoothed
_SMOOTHING = 7  # frames to each side
_REACHED = 6.0  # blocks; turning away at this distance passes the goal at more than a block
_SHARPEST = 0.012  # turns per frame
_WANDER = 0.006  # turns per frame
_WANDER_FRAMES = 25  # frames between changes of the wandering


@dataclasses.dataclass(frozen=True)
class Poses:
  """Position, height (blocks) and heading (turns) of the camera per frame, float64 [T] each."""

  x: np.ndarray
  y: np.ndarray
  eye: np.ndarray
  heading: np.ndarray

  def frames(self, selected: slice | int) -> 'Poses':
    """Returns the poses of some frames, or of one."""
    return Poses(self.x[selected], self.y[selected], self.eye[selected], self.heading[selected])


@dataclasses.dataclass(frozen=True)
class Walk:
  """Poses of T frames, and the cells of the goals, int64 [G] each."""

  poses: Poses
  goal_row: np.ndarray
  goal_column: np.ndarray


def walk(rng: np.random.Generator, land: Terrain, frames: int) -> Walk:
  """Walks at constant speed towards a goal, wandering a little; then towards the next goal.

  Args:
    rng: draws goals and wandering.
    land: the terrain.
    frames: number of poses.
  """
  x = y = SIDE / 2
  heading, rate, side = rng.random(), 0.0, 1 if rng.random() < 0.5 else -1
  goals = [_next_goal(rng, x, y, heading + between(rng, -0.1, 0.1))]
  moods = between(rng, -_WANDER, _WANDER, size=frames // _WANDER_FRAMES + 1)
  xs, ys, headings = np.empty((3, frames))
  for frame in range(frames):
    xs[frame], ys[frame], headings[frame] = x, y, heading
    cos, sin = direction(heading)
    to_x, to_y, distance = _towards(goals[-1], x, y)
    if distance < _REACHED:
      side = -side  # alternates left and right, so that the path avoids old goals
      goals.append(_next_goal(rng, x, y, heading + side * between(rng, 1 / 6, 1 / 3)))
      to_x, to_y, distance = _towards(goals[-1], x, y)
    off = (cos * to_y - sin * to_x) / distance  # sine of the angle to the goal
    if cos * to_x + sin * to_y < 0:
      off = 1 if off > 0 else -1
    target_rate = 2 * _SHARPEST * off + moods[frame // _WANDER_FRAMES]
    rate += 0.2 * (min(max(target_rate, -_SHARPEST), _SHARPEST) - rate)
    heading = heading + rate
    x, y = x + SPEED * cos, y + SPEED * sin
  cells = np.floor(np.array(goals)).astype(np.int64) % SIDE
  return Walk(Poses(xs, ys, _eye(land, xs, ys), headings), cells[:, 1], cells[:, 0])


def _towards(goal: tuple[float, float], x: float, y: float) -> tuple[float, float, float]:
  """Returns the vector to a goal, x and y, and its length."""
  to_x, to_y = goal[0] - x, goal[1] - y
  return to_x, to_y, np.sqrt(to_x * to_x + to_y * to_y)


def _next_goal(rng: np.random.Generator, x: float, y: float, bearing: float) -> tuple[float, float]:
  """Draws the centre of a cell 25 to 45 blocks away."""
  cos, sin = direction(bearing)
  away = between(rng, 25, 45)
  return np.floor(x + away * cos) + 0.5, np.floor(y + away * sin) + 0.5


def _eye(land: Terrain, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns the height of the camera, [T]: the smoothed height of the ground, plus eye level."""
  ground = land.height[np.floor(y).astype(np.int64) % SIDE, np.floor(x).astype(np.int64) % SIDE]
  span = 2 * _SMOOTHING + 1
  for _ in range(2):  # integers until the division, so sums are exact
    padded = np.pad(ground, (_SMOOTHING + 1, _SMOOTHING), mode='edge')
    padded[0] = 0
    total = np.cumsum(padded)
    ground = total[span:] - total[:-span]
  return ground / span**2 + _EYE
