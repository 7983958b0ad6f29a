"""Views inside a maze: coloured walls, a chequered floor, a cloudy sky."""

import dataclasses

import numpy as np

from data_prep.synthetic import grid_rays, mazes, sky
from data_prep.synthetic.supersampling import halve

SIZE = 64
_FINE = 2 * SIZE  # rendered at twice the size, then averaged
_TANGENT = 0.8  # tangent of half the field of view, which is 77 degrees
_EYE = 0.5  # height of the camera; walls have height 1
_TEXELS = 16  # side of a wall texture
_AT_ONCE = 10  # frames; more would not fit into the CPU caches
_WALLS = np.array(
  [
    (214, 62, 54),
    (58, 120, 214),
    (236, 190, 58),
    (66, 166, 84),
    (160, 84, 190),
    (232, 128, 52),
    (72, 190, 196),
    (222, 216, 200),
    (226, 122, 168),
    (128, 92, 66),
  ]
)
_FLOORS = np.array([(150, 140, 126), (120, 134, 146), (158, 128, 104), (126, 142, 116)])
_BLUE, _WHITE, _HAZE = np.array([(88, 142, 214), (236, 240, 244), (198, 214, 228)], np.float32)


@dataclasses.dataclass(frozen=True)
class Decor:
  """Appearance of a maze.

  Attributes:
    blocks: texture of each block, index into `textures`, int64 [9, 9].
    textures: wall textures, float32 [colours, 16, 16, 3], rows downwards.
    floor: the two colours of the floor tiles, float32 [2, 3].
    clouds: from `sky.draw_clouds`.
  """

  blocks: np.ndarray
  textures: np.ndarray
  floor: np.ndarray
  clouds: np.ndarray


def decorate(rng: np.random.Generator) -> Decor:
  """Draws a colour for each block, and one floor and one sky for the maze."""
  floor = _FLOORS[rng.integers(len(_FLOORS))]
  return Decor(
    blocks=rng.integers(len(_WALLS), size=(mazes.BLOCKS, mazes.BLOCKS)),
    textures=_textures(),
    floor=np.stack([floor, floor * 3 / 4]).astype(np.float32),
    clouds=sky.draw_clouds(rng),
  )


def film(wall: np.ndarray, decor: Decor, poses: mazes.Poses) -> np.ndarray:
  """Renders a video, uint8 [T, 64, 64, 3]; equal poses give equal pictures.

  Args:
    wall: the maze, bool [9, 9].
    decor: its appearance.
    poses: poses of T frames inside the corridors.
  """
  starts = range(0, len(poses.x), _AT_ONCE)
  groups = [poses.frames(slice(start, start + _AT_ONCE)) for start in starts]
  return np.concatenate([_render(wall, decor, group) for group in groups])


def _render(wall: np.ndarray, decor: Decor, poses: mazes.Poses) -> np.ndarray:
  """Renders some frames, uint8 [T, 64, 64, 3]."""
  across = grid_rays.screen(_FINE, _TANGENT)
  x, y = poses.x[:, np.newaxis], poses.y[:, np.newaxis]
  rays = grid_rays.column_rays(poses.heading, across)
  behind = np.concatenate(
    [_draw_sky(decor, *rays, across), _draw_floor(decor, x, y, *rays, across)], axis=1
  )

  hit, texel = _find_walls(wall, x, y, *rays)
  height = (across.astype(np.float32)[:, np.newaxis] * hit.depth[:, np.newaxis]) + np.float32(_EYE)
  rows = np.clip(np.floor(height * _TEXELS).astype(np.int64), 0, _TEXELS - 1)
  colour = decor.blocks[hit.row, hit.column][:, np.newaxis]
  light = _fade(hit.depth) * np.where(hit.on_row, np.float32(0.78), np.float32(1))
  front = decor.textures[colour, rows, texel[:, np.newaxis]] * light[:, np.newaxis, :, np.newaxis]
  covered = (height >= 0) & (height < 1)
  return halve(np.where(covered[..., np.newaxis], front, behind))


def _find_walls(
  wall: np.ndarray, x: np.ndarray, y: np.ndarray, ray_x: np.ndarray, ray_y: np.ndarray
) -> tuple[grid_rays.Crossing, np.ndarray]:
  """Finds the first wall that each ray hits, and the texel column of the hit; [T, W] each."""
  steps = list(grid_rays.crossings(x, y, ray_x, ray_y, 2 * mazes.BLOCKS))
  blocked = [wall[step.row % mazes.BLOCKS, step.column % mazes.BLOCKS] for step in steps]
  first = np.argmax(blocked, axis=0)[np.newaxis]
  row, column, depth, on_row = (
    np.take_along_axis(np.stack([getattr(step, field.name) for step in steps]), first, 0)[0]
    for field in dataclasses.fields(grid_rays.Crossing)
  )
  along = np.where(on_row, x + depth * ray_x, y + depth * ray_y)
  texel = np.floor((along - np.floor(along)) * _TEXELS).astype(np.int64)
  hit = grid_rays.Crossing(row, column, depth.astype(np.float32), on_row)
  return hit, np.minimum(texel, _TEXELS - 1)


def _draw_sky(decor: Decor, ray_x: np.ndarray, ray_y: np.ndarray, across: np.ndarray) -> np.ndarray:
  """Renders the rows above the horizon, [T, H / 2, W, 3]: blue with clouds, hazy at the horizon."""
  up = -across[: _FINE // 2]
  clouds = sky.overhead(decor.clouds, ray_x, ray_y, up)[..., np.newaxis]
  clear = (up / _TANGENT).astype(np.float32)[:, np.newaxis, np.newaxis]
  return _HAZE + clear * (_BLUE + clouds * (_WHITE - _BLUE) - _HAZE)


def _draw_floor(
  decor: Decor,
  x: np.ndarray,
  y: np.ndarray,
  ray_x: np.ndarray,
  ray_y: np.ndarray,
  across: np.ndarray,
) -> np.ndarray:
  """Renders the rows below the horizon, [T, H / 2, W, 3]: two tiles per block side."""
  depth = _EYE / across[_FINE // 2 :, np.newaxis]
  column, row = (
    np.floor(2 * (start[:, np.newaxis] + depth * ray[:, np.newaxis])).astype(np.int64)
    for start, ray in ((x, ray_x), (y, ray_y))
  )
  light = _fade(depth.astype(np.float32))[..., np.newaxis]
  return decor.floor[(row + column) % 2] * light


def _fade(depth: np.ndarray) -> np.ndarray:
  """Returns the brightness at a depth, float32 up to 1."""
  return 1 / (1 + np.float32(0.16) * depth)


def _textures() -> np.ndarray:
  """Makes one texture per wall colour: bricks, planks and framed panels in turn."""
  row, column = np.mgrid[:_TEXELS, :_TEXELS]
  shifted = column + row // 4 % 2 * 4
  bricks = np.where((row % 4 == 3) | (shifted % 8 == 7), 0.72, 1)
  planks = np.where(column % 4 == 3, 0.75, 1 - 0.08 * (column // 4 % 2))
  edge = np.minimum(np.minimum(row, column), np.minimum(15 - row, 15 - column))
  panels = np.where(edge == 2, 0.7, np.where(edge < 2, 0.88, 1))
  patterns = np.stack([bricks, planks, panels])[np.arange(len(_WALLS)) % 3]
  return (_WALLS[:, np.newaxis, np.newaxis] * patterns[..., np.newaxis]).astype(np.float32)
