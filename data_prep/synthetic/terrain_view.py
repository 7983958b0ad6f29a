"""Views of a terrain: ground and trees, haze, and a sky by day or by night."""

import dataclasses

import numpy as np

from data_prep.synthetic import grid_rays, sky, terrain, terrain_ground, terrain_walk, trees
from data_prep.synthetic.directions import direction
from data_prep.synthetic.supersampling import halve

SIZE = 64
_FINE = 2 * SIZE  # rendered at twice the size, then averaged
_TANGENT = 0.8  # tangent of half the field of view, which is 77 degrees
_TILT = 0.12  # downward slope of the middle row
_SIGHT = 44  # blocks; haze hides everything beyond, and rays end
_AT_ONCE = 10  # frames; more would not fit into the CPU caches
_DAY = 4000  # frames
# by night, at dusk, by day
_ZENITH = np.array([(10, 14, 36), (74, 84, 150), (98, 154, 236)], np.float32)
_HORIZON = np.array([(28, 36, 66), (236, 164, 112), (196, 218, 240)], np.float32)
_LIGHT = np.array([(0.22, 0.26, 0.38), (0.8, 0.64, 0.54), (1, 1, 1)], np.float32)
_CLOUD = np.float32(244)  # grey level in full light


@dataclasses.dataclass(frozen=True)
class Landscape:
  """Terrain, trees, clouds (from `sky.draw_clouds`), and daylight 0 to 1, [T]."""

  land: terrain.Terrain
  trees: trees.Trees
  clouds: np.ndarray
  daylight: np.ndarray


def daylight(rng: np.random.Generator, frames: int) -> np.ndarray:
  """Draws the light of a part of a day or night: 0.15 to 1, float64 [frames]."""
  _, height = direction(rng.random() + np.arange(frames) / _DAY)
  return np.clip(0.7 + 0.7 * height, 0.15, 1)


def film(scene: Landscape, poses: terrain_walk.Poses) -> np.ndarray:
  """Renders a video, uint8 [T, 64, 64, 3]."""
  starts = range(0, len(poses.x), _AT_ONCE)
  groups = [slice(start, start + _AT_ONCE) for start in starts]
  return np.concatenate(
    [_render(scene, poses.frames(group), scene.daylight[group]) for group in groups]
  )


def _render(scene: Landscape, poses: terrain_walk.Poses, day: np.ndarray) -> np.ndarray:
  """Renders some frames, uint8 [T, 64, 64, 3]."""
  across = grid_rays.screen(_FINE, _TANGENT)
  down = across + _TILT
  picture, depth = terrain_ground.render(scene.land, poses, across, down)
  for frame in range(len(day)):
    trees.render(picture[frame], depth[frame], scene.trees, poses.frames(frame), across, down)
  horizon = _by_day(_HORIZON, day)
  near = np.minimum(depth / np.float32(_SIGHT), 1)[..., np.newaxis]
  lit = picture * _by_day(_LIGHT, day)
  picture = lit + near * near * (horizon - lit)
  above = int((down < 0).sum())
  air = _draw_sky(scene.clouds, *grid_rays.column_rays(poses.heading, across), -down[:above], day)
  picture[:, :above] = np.where(np.isinf(depth[:, :above, :, np.newaxis]), air, picture[:, :above])
  return halve(picture)


def _draw_sky(
  clouds: np.ndarray, ray_x: np.ndarray, ray_y: np.ndarray, up: np.ndarray, day: np.ndarray
) -> np.ndarray:
  """Renders the rows of slopes `up`, float32 [T, rows, W, 3]."""
  zenith, horizon, light = (_by_day(colours, day) for colours in (_ZENITH, _HORIZON, _LIGHT))
  cloud = sky.overhead(clouds, ray_x, ray_y, up)[..., np.newaxis]
  clear = np.minimum(2 * up, 1).astype(np.float32)[:, np.newaxis, np.newaxis]
  return horizon + clear * (zenith + cloud * (_CLOUD * light - zenith) - horizon)


def _by_day(colours: np.ndarray, day: np.ndarray) -> np.ndarray:
  """Interpolates the colours of night, dusk and day: float32 [T, 1, 1, 3]."""
  night, dusk, noon = colours
  day = day.astype(np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
  early, late = np.clip(2 * day, 0, 1), np.clip(2 * day - 1, 0, 1)
  return night + early * (dusk - night) + late * (noon - dusk)
