"""Trees: billboards, which always face the camera, on a terrain."""

import dataclasses

import numpy as np

from data_prep.synthetic import terrain, terrain_walk
from data_prep.synthetic.directions import direction
from data_prep.synthetic.draws import between

WIDTH, HEIGHT = 5, 7  # size of a billboard, blocks
TEXELS = 8  # per block
_PITCH = 4  # blocks; a square of this side has at most one tree
_CLEAR = 3.2  # blocks without trees on both sides of a walk
_NEAREST, _FARTHEST = 0.5, 40.0  # blocks between which trees are drawn
_TRUNKS = np.array([(98, 74, 46), (208, 204, 194), (70, 50, 34)])
_LEAVES = np.array([(58, 112, 40), (98, 138, 62), (40, 78, 56)])


@dataclasses.dataclass(frozen=True)
class Trees:
  """N trees on a terrain.

  Attributes:
    x, y, foot: position and height of the foot, blocks, float64 [N].
    kind: 0 oak, 1 birch, 2 spruce, int64 [N].
    colour: picture of each kind, float32 [3, 56, 40, 3], rows downwards.
    solid: opaque texels of each kind, bool [3, 56, 40].
  """

  x: np.ndarray
  y: np.ndarray
  foot: np.ndarray
  kind: np.ndarray
  colour: np.ndarray
  solid: np.ndarray


def plant(rng: np.random.Generator, land: terrain.Terrain, walk: terrain_walk.Walk) -> Trees:
  """Draws trees on grass, with one density for the terrain, away from the walk and its goals."""
  side = terrain.SIDE // _PITCH
  corner = np.arange(side) * _PITCH
  column = corner + rng.integers(_PITCH, size=(side, side))
  row = corner[:, np.newaxis] + rng.integers(_PITCH, size=(side, side))
  common = int(rng.integers(3))
  kind = np.where(rng.random((side, side)) < 0.8, common, (common + 1) % 3)
  ground = land.ground[row, column]
  density = between(rng, 0.05, 0.5)
  chance = np.where(ground == terrain.GRASS, density, density / 6 * (ground == terrain.DRY))
  grows = rng.random((side, side)) < chance
  row, column, kind = row[grows], column[grows], kind[grows]
  way_x = np.concatenate([walk.poses.x[::4], walk.goal_column + 0.5])
  way_y = np.concatenate([walk.poses.y[::4], walk.goal_row + 0.5])
  away_x = terrain.shortest(column + 0.5 - way_x[:, np.newaxis])
  away_y = terrain.shortest(row + 0.5 - way_y[:, np.newaxis])
  clear = (away_x * away_x + away_y * away_y).min(0) > _CLEAR * _CLEAR
  row, column, kind = row[clear], column[clear], kind[clear]
  colour, solid = _draw_billboards(rng)
  return Trees(column + 0.5, row + 0.5, land.height[row, column] * 1.0, kind, colour, solid)


def render(
  picture: np.ndarray,
  depth: np.ndarray,
  trees: Trees,
  pose: terrain_walk.Poses,
  across: np.ndarray,
  down: np.ndarray,
) -> None:
  """Renders the visible parts of trees into a picture, in full light.

  Args:
    picture: one frame, float32 [H, W, 3]; changed in place.
    depth: depth of its pixels, float32 [H, W]; changed in place.
    trees: all trees of the terrain.
    pose: pose of the camera, single numbers.
    across, down: slopes of the columns [W] and rows [H] to the camera's axis.
  """
  cos, sin = direction(pose.heading)
  away_x, away_y = terrain.shortest(trees.x - pose.x), terrain.shortest(trees.y - pose.y)
  ahead, aside = cos * away_x + sin * away_y, cos * away_y - sin * away_x
  seen = (ahead > _NEAREST) & (ahead < _FARTHEST)
  seen &= np.abs(aside) < ahead * across[-1] + WIDTH / 2
  for tree in np.flatnonzero(seen):
    texel = _texels(across * ahead[tree] - aside[tree] + WIDTH / 2)
    texel_row = _texels(trees.foot[tree] + HEIGHT - pose.eye + down * ahead[tree])
    columns, rows = _inside(texel, WIDTH), _inside(texel_row, HEIGHT)
    kind, place = trees.kind[tree], (texel_row[rows, np.newaxis], texel[columns])
    nearer = trees.solid[kind][place] & (depth[rows, columns] > ahead[tree])
    picture[rows, columns][nearer] = trees.colour[kind][place][nearer]
    depth[rows, columns][nearer] = ahead[tree]


def _texels(blocks: np.ndarray) -> np.ndarray:
  return np.floor(blocks * TEXELS).astype(np.int64)


def _inside(texels: np.ndarray, blocks: int) -> slice:
  """Returns the slice of the increasing `texels` that are inside a billboard of `blocks` blocks."""
  return slice(*np.searchsorted(texels, (0, blocks * TEXELS)).tolist())


def _draw_billboards(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Draws colours and opaque parts of the three kinds; leaves with holes, lit from above."""
  block_row, block = np.mgrid[: HEIGHT * TEXELS, : WIDTH * TEXELS] // TEXELS
  aside = np.abs(block - WIDTH // 2)
  crown = np.where(block_row < 2, aside < 2, (block_row < 4) & (aside < 3))
  texel_row, texel = np.mgrid[: HEIGHT * TEXELS, : WIDTH * TEXELS]
  reach = 3 + texel_row * 16 // (5 * TEXELS) - texel_row % TEXELS // 3  # a ragged cone
  cone = (np.abs(2 * texel + 1 - WIDTH * TEXELS) // 2 < reach) & (block_row < 5)
  leaves = np.stack([crown, crown, cone])
  leaves &= rng.random(leaves.shape) > 0.12
  trunk = (np.abs(2 * texel + 1 - WIDTH * TEXELS) < TEXELS) & (block_row >= 2)
  light = 0.75 + 0.3 * rng.random(leaves.shape) - 0.05 * block_row
  kinds = np.arange(3)[:, np.newaxis, np.newaxis]
  colour = np.where(leaves[..., np.newaxis], _LEAVES[kinds] * 1.3, _TRUNKS[kinds])
  return (colour * light[..., np.newaxis]).astype(np.float32), leaves | trunk
