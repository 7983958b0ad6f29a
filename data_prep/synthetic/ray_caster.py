"""Ray caster for solids on a plane: visibility, light with soft shadows, and reflections.

The lights are one key and two fill lights at infinity, each a disc of directions for soft shadows.
Light adds up linearly; a square root serves as the display's gamma, as it is exact on every
platform.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Protocol

import numpy as np

from data_prep.synthetic.directions import direction
from data_prep.synthetic.solids import Solid, column, dot

_AMBIENT = 0.35
_POOL = 60.0  # squared distance from the middle at which the light has faded by half
_GOLDEN = (3 - 5**0.5) / 2  # golden angle in turns, between points of a sunflower pattern
_FAR = 0.4  # fraction of the light that remains far away


class Surface(Protocol):
  """Surface of a solid, or of the ground."""

  metal: bool

  def albedo(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Returns linear RGB, [3, N] or [3, 1], at points and normals [3, N] in the solid's axes."""


@dataclasses.dataclass(frozen=True)
class Paint:
  """Surface of one colour, given as display levels 0 to 255."""

  color: tuple[int, int, int]
  metal: bool = False

  def albedo(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    return column([(level / 255) ** 2 for level in self.color])


@dataclasses.dataclass(frozen=True)
class Light:
  """Light from a disc of directions; `spread` is the disc's radius at distance 1."""

  towards: tuple[float, float, float]  # any length
  strength: float
  spread: float
  samples: int

  @functools.cached_property
  def axis(self) -> np.ndarray:
    """Unit vector towards the middle of the light, [3]."""
    return _unit(np.array(self.towards))

  @functools.cached_property
  def directions(self) -> np.ndarray:
    """Unit vectors towards the light, float32 [3, samples], from a sunflower pattern."""
    across = _unit(np.cross(self.axis, [0, 0, 1.0]))
    along = np.cross(across, self.axis)
    k = np.arange(self.samples) + 0.5
    disc = self.spread * np.sqrt(k / self.samples) * direction(k * _GOLDEN)
    spots = self.axis[:, None] + across[:, None] * disc[0] + along[:, None] * disc[1]
    return (spots / np.sqrt(dot(spots, spots))).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Scene:
  """Solids on the plane z = 0; the first of `surfaces` is the ground."""

  solids: Sequence[Solid]
  surfaces: Sequence[Surface]
  lights: Sequence[Light]


@dataclasses.dataclass(frozen=True)
class Camera:
  """A pinhole camera that looks at the origin, with a frame of 320x240 pixels."""

  position: tuple[float, float, float]
  focal: float = 350.0  # pixels: 35 mm on a sensor 32 mm wide

  @functools.cached_property
  def axes(self) -> np.ndarray:
    """Unit vectors to the right, downwards and forwards, as rows [3, 3]."""
    forward = _unit(-np.array(self.position))
    right = _unit(np.cross(forward, [0, 0, 1.0]))
    return np.stack([right, np.cross(forward, right), forward])

  @property
  def origin(self) -> np.ndarray:
    """Origin of all rays, float32 [3, 1]."""
    return column(self.position)

  def rays(self, box: tuple[int, int, int, int]) -> np.ndarray:
    """Returns unit directions float32 [3, N] through the pixels of a box, row by row.

    Args:
      box: left, top, right, bottom, as Pillow crops.
    """
    left, top, right, bottom = box
    x = np.arange(left, right)[None, :] + (0.5 - 160)
    y = np.arange(top, bottom)[:, None] + (0.5 - 120)
    sides = self.axes / self.focal
    rays = [x * sides[0, i] + y * sides[1, i] + self.axes[2, i] for i in range(3)]
    rays = np.stack([ray.ravel() for ray in rays])
    return (rays / np.sqrt(dot(rays, rays))).astype(np.float32)

  def project(self, point: tuple[float, float, float]) -> tuple[float, float, float]:
    """Projects a point: column and row in the frame, pixels, and depth."""
    right, down, depth = dot(self.axes.T, np.subtract(point, self.position)[:, None])
    return (
      float(160 + self.focal * right / depth),
      float(120 + self.focal * down / depth),
      float(depth),
    )


@dataclasses.dataclass(frozen=True)
class Hits:
  """Hits of rays: points and unit normals [3, N], and the number of the solid, 0 = ground."""

  points: np.ndarray
  normals: np.ndarray
  number: np.ndarray


def trace(solids: Sequence[Solid], origin: np.ndarray, rays: np.ndarray) -> Hits:
  """Finds the first hit of each ray; an upward ray that hits no solid gets the number 255.

  Args:
    solids: counted from 1 on.
    origin: [3, 1] or [3, N].
    rays: unit directions [3, N].
  """
  origin = np.broadcast_to(origin, rays.shape)
  falls = rays[2] < 0
  distance = np.where(falls, origin[2] / np.where(falls, -rays[2], 1), np.float32(np.inf))
  number = np.where(falls, 0, 255).astype(np.uint8)
  for this, solid in enumerate(solids, 1):
    some = _may_meet(solid, origin, rays, 0)
    met = solid.meet(origin[:, some], rays[:, some])
    closer = met < distance[some]
    distance[some[closer]] = met[closer]
    number[some[closer]] = this
  points = origin + rays * np.where(number == 255, 0, distance)
  normals = np.zeros_like(rays)
  normals[2] = 1
  for this, solid in enumerate(solids, 1):
    some = np.flatnonzero(number == this)
    normals[:, some] = solid.normals(points[:, some])
  return Hits(points, normals, number)


def paint(scene: Scene, rays: np.ndarray, hits: Hits) -> np.ndarray:
  """Shades the hits of camera rays [3, N], all downwards: display levels uint8 [N, 3]."""
  albedo = _albedo(scene, hits)
  light = albedo * irradiance(scene, hits)
  mirror = rays - hits.normals * (2 * dot(rays, hits.normals))
  gloss = [surface.metal for surface in scene.surfaces]
  shiny = np.flatnonzero(np.array(gloss)[hits.number])
  if shiny.size:
    seen = _reflected(scene, hits.points[:, shiny], mirror[:, shiny])
    tint = np.float32(0.08) + np.float32(0.92) * albedo[:, shiny]
    light[:, shiny] = light[:, shiny] * np.float32(0.2) + tint * seen
    light[:, shiny] += _highlight(scene, mirror[:, shiny], 6) * np.float32(0.6)
  dull = np.flatnonzero((hits.number > 0) & ~np.array(gloss)[hits.number])
  light[:, dull] += _highlight(scene, mirror[:, dull], 3) * np.float32(0.05)
  return np.rint(np.sqrt(light.clip(0, 1)) * 255).astype(np.uint8).T


def irradiance(scene: Scene, hits: Hits, shadows: bool = True) -> np.ndarray:
  """Returns the light at each hit, float32 [N]; white, about 1 where nothing blocks it."""
  total = _AMBIENT * _openness(scene.solids, hits)
  for light in scene.lights:
    facing = np.maximum(dot(hits.normals, column(light.axis)), 0)
    lit = _lit(scene.solids, light, hits) if shadows else np.float32(1)
    total += facing * lit * np.float32(light.strength)
  x, y, _ = hits.points
  square = x * x + y * y
  return total * (np.float32(_FAR) * square + np.float32(_POOL)) / (square + np.float32(_POOL))


def _openness(solids: Sequence[Solid], hits: Hits) -> np.ndarray:
  """Returns the fraction of the sky not covered by other solids, as spheres, float32 [N]."""
  open_sky = np.ones_like(hits.points[0])
  for this, solid in enumerate(solids, 1):
    away = column(solid.center) - hits.points
    square = np.maximum(dot(away, away), np.float32(solid.radius**2))
    raised = np.maximum(dot(away, hits.normals), 0) / np.sqrt(square)
    covered = np.where(hits.number == this, 0, raised * np.float32(solid.radius**2) / square)
    open_sky *= 1 - covered
  return open_sky


def _lit(solids: Sequence[Solid], light: Light, hits: Hits) -> np.ndarray:
  """Returns the fraction of a light that other solids let reach each hit, float32 [N]."""
  blocked = np.zeros((light.samples, hits.number.size), bool)
  for this, solid in enumerate(solids, 1):
    some = _may_meet(solid, hits.points, column(light.axis), light.spread)
    some = some[hits.number[some] != this]  # convex: a solid does not shade itself, but faces away
    met = solid.meet(hits.points[:, None, some], light.directions[:, :, None])
    blocked[:, some] |= met < np.inf
  return 1 - blocked.sum(0) * np.float32(1 / light.samples)


def _may_meet(solid: Solid, origin: np.ndarray, rays: np.ndarray, spread: float) -> np.ndarray:
  """Returns the rays that may hit the bounding sphere, enlarged by `spread` per length."""
  offset = column(solid.center) - origin
  along = dot(offset, rays)
  reach = np.maximum(along, 0) * np.float32(spread) + np.float32(solid.bound)
  passes = dot(offset, offset) - along * along < reach * reach
  return np.flatnonzero(passes & (along > -np.float32(solid.bound)))


def _albedo(scene: Scene, hits: Hits) -> np.ndarray:
  """Returns linear RGB float32 [3, N] of the hit surfaces; black at infinity."""
  albedo = np.zeros_like(hits.points)
  for this, surface in enumerate(scene.surfaces):
    some = np.flatnonzero(hits.number == this)
    points, normals = hits.points[:, some], hits.normals[:, some]
    if this:
      solid = scene.solids[this - 1]
      points, normals = solid.frame(points), solid.turn(normals)
    albedo[:, some] = surface.albedo(points, normals)
  return albedo


def _reflected(scene: Scene, points: np.ndarray, mirror: np.ndarray) -> np.ndarray:
  """Returns the reflected light float32 [3, N]: solids and ground without shadows, or the sky."""
  hits = trace(scene.solids, points, mirror)
  sky = np.float32(0.2) + np.float32(1.6) * np.maximum(mirror[2], 0)
  seen = _albedo(scene, hits) * irradiance(scene, hits, shadows=False)
  return np.where(hits.number == 255, sky, seen)


def _highlight(scene: Scene, mirror: np.ndarray, doublings: int) -> np.ndarray:
  """Returns Phong highlights of all lights, float32 [N], with exponent 2**doublings."""
  total = np.zeros_like(mirror[0])
  for light in scene.lights:
    peak = np.maximum(dot(mirror, column(light.axis)), 0)
    for _ in range(doublings):
      peak = peak * peak
    total += peak * np.float32(light.strength)
  return total


def _unit(vector: np.ndarray) -> np.ndarray:
  return vector / np.sqrt(dot(vector, vector))
