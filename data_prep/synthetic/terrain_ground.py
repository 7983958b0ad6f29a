"""Rendering of the ground of a terrain.

The ray of each picture column is followed from cell to cell. Every cell has two edges in the
picture: the upper edge of its face, where the ray enters, and the far edge of its top, where the
ray leaves. A pixel shows the surface under the first edge that rises above the pixel.
"""

import dataclasses

import numpy as np

from data_prep.synthetic import grid_rays, terrain, terrain_walk

_CELLS = 80  # cells along a ray
_TEXELS = 8  # per block
_CONTRAST = 0.2  # contrast of the grain of near ground
_GRAIN_REACH = 6  # blocks; distance at which the contrast has halved
_TURF = 0.25  # blocks; upper part of a face that looks like the top
_FACES = (0.64, 0.8)  # light on faces between columns and between rows
_COLOURS = np.array(  # top and face of each ground
  [
    [(62, 104, 196), (62, 104, 196)],
    [(222, 208, 150), (206, 190, 132)],
    [(100, 164, 66), (130, 96, 66)],
    [(172, 164, 84), (130, 96, 66)],
    [(132, 130, 128), (116, 114, 112)],
    [(214, 220, 228), (204, 212, 222)],
    [(120, 240, 232), (96, 222, 216)],
  ],
  np.float32,
)


@dataclasses.dataclass(frozen=True)
class _Cells:
  """Cells along each ray, nearest first; [T, cells, W] each; numbers are float32.

  Attributes:
    near, far: depths where the ray enters and leaves.
    below: height of the eye above the top of the cell, blocks.
    on_row: whether the ray enters through a face between two rows.
    ground, tint: as in `Terrain`.
  """

  near: np.ndarray
  far: np.ndarray
  below: np.ndarray
  on_row: np.ndarray
  ground: np.ndarray
  tint: np.ndarray


def render(
  land: terrain.Terrain, poses: terrain_walk.Poses, across: np.ndarray, down: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Renders the ground in full light.

  Args:
    land: the terrain.
    poses: poses of T frames.
    across, down: slopes of the columns [W] and rows [H] to the camera's axis.

  Returns:
    Colours float32 [T, H, W, 3], and depths float32 [T, H, W], inf for the sky.
  """
  ray_x, ray_y = grid_rays.column_rays(poses.heading, across)
  cells = _follow(land, poses, ray_x, ray_y)
  edge = _first_edge(cells, down)
  sky = edge == 2 * _CELLS
  cell, top = np.where(sky, 0, edge // 2), edge % 2 == 1

  def seen(values: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, cell, axis=1)

  slope, drop = down[:, np.newaxis].astype(np.float32), seen(cells.below)
  with np.errstate(divide='ignore', invalid='ignore'):  # level rows meet faces only
    depth = np.where(top, drop / slope, seen(cells.near))
  x, y = (
    start[:, np.newaxis, np.newaxis].astype(np.float32)
    + depth * ray[:, np.newaxis].astype(np.float32)
    for start, ray in ((poses.x, ray_x), (poses.y, ray_y))
  )
  on_row, sunk = seen(cells.on_row), depth * slope - drop  # `sunk`: under the top, blocks
  texel = _texel(np.where(on_row | top, x, y)), _texel(np.where(top, y, sunk))
  grain = land.grain[texel] / (1 + depth / np.float32(_GRAIN_REACH))
  light = np.where(top, np.float32(1), np.array(_FACES, np.float32)[on_row.astype(np.int64)])
  light *= seen(cells.tint) * (1 + np.float32(_CONTRAST) * grain)
  bare = ~top & (sunk > np.float32(_TURF))
  colour = _COLOURS[seen(cells.ground), bare.astype(np.int64)] * light[..., np.newaxis]
  return colour, np.where(sky, np.float32(np.inf), depth)


def _follow(
  land: terrain.Terrain, poses: terrain_walk.Poses, ray_x: np.ndarray, ray_y: np.ndarray
) -> _Cells:
  """Returns the cells along rays [T, W], starting with the cell of the camera."""
  x, y = poses.x[:, np.newaxis], poses.y[:, np.newaxis]
  crossed = list(grid_rays.crossings(x, y, ray_x, ray_y, _CELLS))
  row, column = (
    np.stack([np.broadcast_to(first, ray_x.shape), *others], axis=1) % terrain.SIDE
    for first, others in (
      (np.floor(y).astype(np.int64), [step.row for step in crossed[:-1]]),
      (np.floor(x).astype(np.int64), [step.column for step in crossed[:-1]]),
    )
  )
  depth = np.stack([step.depth for step in crossed], axis=1).astype(np.float32)
  on_row = np.stack([step.on_row for step in crossed], axis=1)
  below = poses.eye[:, np.newaxis, np.newaxis] - land.height[row, column]
  return _Cells(
    near=np.pad(depth[:, :-1], ((0, 0), (1, 0), (0, 0))),
    far=depth,
    below=below.astype(np.float32),
    on_row=np.pad(on_row[:, :-1], ((0, 0), (1, 0), (0, 0))),
    ground=land.ground[row, column],
    tint=land.tint[row, column],
  )


def _first_edge(cells: _Cells, down: np.ndarray) -> np.ndarray:
  """Counts the edges under each pixel, [T, H, W]; edges are face, top of each cell in order."""
  frames, count, width = cells.below.shape
  with np.errstate(divide='ignore'):
    face, top = cells.below / cells.near, cells.below / cells.far
  face[:, 0] = np.inf  # the camera is in this cell
  edges = np.stack([face, top], axis=2).reshape(frames, 2 * count, width)
  rising = np.minimum.accumulate(edges, axis=1)
  pitch = down[1] - down[0]
  rows = np.clip(np.ceil((rising - down[0]) / pitch), 0, len(down)).astype(np.int64)
  # Rows from `rows` on are under an edge, so the edges under row r have rows > r.
  place = (np.arange(frames)[:, np.newaxis, np.newaxis] * (len(down) + 1) + rows) * width
  tally = np.bincount(
    (place + np.arange(width)).ravel(), minlength=frames * (len(down) + 1) * width
  )
  tally = tally.reshape(frames, len(down) + 1, width)
  return np.cumsum(tally[:, :0:-1], axis=1)[:, ::-1]


def _texel(place: np.ndarray) -> np.ndarray:
  return np.floor(place * _TEXELS).astype(np.int64) % terrain.GRAIN
