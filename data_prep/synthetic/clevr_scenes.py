"""Placement of objects in CLEVR-like scenes: none overlap, and each is visible in the crop."""

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

from data_prep.synthetic import draws, ray_caster
from data_prep.synthetic.directions import direction
from data_prep.synthetic.ray_caster import Camera, Light
from data_prep.synthetic.solids import SHAPES, Solid

_REACH = 3.0  # objects are within +- this along x and y
_GAP = 0.25  # least distance between two objects
_INSIDE = 10  # smallest distance of an object's centre from the border of the crop, pixels
_MIN_VISIBLE = 64  # visible pixels of each object in the crop
_TRIES = 50  # places tried for an object before the scene starts again
_CAMERA = (7.5, -6.5, 5.4)
_LIGHTS = (
  Light(towards=(-0.15, -0.75, 1.0), strength=0.72, spread=0.16, samples=16),  # key
  Light(towards=(1.0, -0.1, 0.8), strength=0.22, spread=0.3, samples=6),
  Light(towards=(0.1, 0.9, 1.0), strength=0.22, spread=0.3, samples=6),
)


@dataclasses.dataclass(frozen=True)
class Rules:
  """Rules of a data set for its scenes.

  Attributes:
    counts: smallest and largest number of objects.
    sizes: radius of a sphere or cylinder of each size; half the diagonal of a cube's face.
    box: crop of the frame: left, top, right, bottom.
  """

  counts: tuple[int, int]
  sizes: tuple[float, ...]
  box: tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Placed:
  """An object, its size as an index, and its rotation in degrees."""

  solid: Solid
  size: int
  rotation: float


@dataclasses.dataclass(frozen=True)
class Setting:
  """A scene without its surfaces, and the rays and hits of the camera."""

  placed: Sequence[Placed]
  camera: Camera
  lights: Sequence[Light]
  rays: np.ndarray
  hits: ray_caster.Hits


def draw_setting(rng: np.random.Generator, rules: Rules) -> Setting:
  """Draws objects, camera and lights; retries keep the number of objects, so it is uniform."""
  count = int(rng.integers(rules.counts[0], rules.counts[1] + 1))
  while True:
    camera = Camera(_shift(rng, _CAMERA, 0.5))
    lights = [
      dataclasses.replace(light, towards=_shift(rng, light.towards, 0.1)) for light in _LIGHTS
    ]
    placed = _place(rng, rules, camera, count)
    if len(placed) < count:
      continue
    rays = camera.rays(rules.box)
    hits = ray_caster.trace([p.solid for p in placed], camera.origin, rays)
    visible = np.bincount(hits.number, minlength=count + 1)[1:]
    if visible.min() >= _MIN_VISIBLE:
      return Setting(placed, camera, lights, rays, hits)


def _place(rng: np.random.Generator, rules: Rules, camera: Camera, count: int) -> list[Placed]:
  """Places `count` objects, or fewer if no free place is found."""
  placed: list[Placed] = []
  for _ in range(count):
    for _ in range(_TRIES):
      candidate = _draw_object(rng, rules)
      if _is_free(candidate, placed, rules) and _is_inside(candidate, camera, rules):
        placed.append(candidate)
        break
  return placed


def _draw_object(rng: np.random.Generator, rules: Rules) -> Placed:
  size, shape = int(rng.integers(len(rules.sizes))), SHAPES[rng.integers(len(SHAPES))]
  x, y = draws.between(rng, -_REACH, _REACH, 2)
  rotation = float(draws.between(rng, 0, 360))
  cosine, sine = map(float, direction(rotation / 360))
  radius = rules.sizes[size]
  if shape == 'cube':
    radius = radius / math.sqrt(2)
  return Placed(Solid(shape, (float(x), float(y), radius), radius, (cosine, sine)), size, rotation)


def _is_free(candidate: Placed, placed: Sequence[Placed], rules: Rules) -> bool:
  x, y, _ = candidate.solid.center
  for other in placed:
    dx, dy = x - other.solid.center[0], y - other.solid.center[1]
    least = rules.sizes[candidate.size] + rules.sizes[other.size] + _GAP
    if dx * dx + dy * dy < least * least:
      return False
  return True


def _is_inside(candidate: Placed, camera: Camera, rules: Rules) -> bool:
  left, top, right, bottom = rules.box
  x, y, _ = camera.project(candidate.solid.center)
  return left + _INSIDE <= x <= right - _INSIDE and top + _INSIDE <= y <= bottom - _INSIDE


def _shift(
  rng: np.random.Generator, point: tuple[float, float, float], most: float
) -> tuple[float, float, float]:
  x, y, z = np.add(point, draws.between(rng, -most, most, 3)).tolist()
  return x, y, z
