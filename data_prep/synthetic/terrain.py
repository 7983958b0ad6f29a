"""Terrain of blocks: hills, water, sand, grass, rock and snow; it is periodic."""

import dataclasses

import numpy as np

from data_prep.synthetic.draws import between
from data_prep.synthetic.noise import fractal_noise

SIDE = 256  # blocks, the period of the terrain
GRAIN = 16  # texels, side of the periodic pattern of near ground
WATER, SAND, GRASS, DRY, ROCK, SNOW, GOAL = range(7)
_SNOW_ABOVE_ROCK = 4  # blocks
_GOAL_HEIGHT = 3  # blocks


@dataclasses.dataclass(frozen=True)
class Terrain:
  """Terrain as columns of blocks.

  Attributes:
    height: height of the top of each column, blocks, int64 [256, 256].
    ground: material of each column, one of the constants above, int64 [256, 256].
    tint: brightness of each column, float32 [256, 256], near 1.
    grain: unevenness of near ground, float32 [16, 16], from -1 to 1.
  """

  height: np.ndarray
  ground: np.ndarray
  tint: np.ndarray
  grain: np.ndarray

  def with_goals(self, row: np.ndarray, column: np.ndarray) -> 'Terrain':
    """Adds a pillar on each of the given cells."""
    height, ground = self.height.copy(), self.ground.copy()
    height[row, column] += _GOAL_HEIGHT
    ground[row, column] = GOAL
    return dataclasses.replace(self, height=height, ground=ground)


def generate(rng: np.random.Generator) -> Terrain:
  """Draws a terrain with random relief, water level, rock level and dryness."""
  relief = rng.integers(16, 44)
  height = np.floor(fractal_noise(rng, SIDE, 4, 5) * relief).astype(np.int64)
  low, high = int(height.min()), int(height.max())
  water = low + (high - low) * int(rng.integers(0, 40)) // 100
  rock = water + 4 + int(rng.integers(2, 16))
  dryness = fractal_noise(rng, SIDE, 8, 3) + between(rng, -0.3, 0.3)
  ground = np.where(dryness > 0.6, DRY, GRASS)
  ground = np.where(height <= water + 1, SAND, ground)
  ground = np.where(height >= rock, ROCK, ground)
  ground = np.where(height >= rock + _SNOW_ABOVE_ROCK, SNOW, ground)
  ground = np.where(height <= water, WATER, ground)
  tint = 0.85 + 0.2 * fractal_noise(rng, SIDE, 32, 2) + 0.1 * rng.random((SIDE, SIDE))
  tint = np.where(ground == WATER, 1, tint)
  grain = between(rng, -1, 1, size=(GRAIN, GRAIN)).astype(np.float32)
  return Terrain(np.maximum(height, water), ground, tint.astype(np.float32), grain)


def shortest(distance: np.ndarray) -> np.ndarray:
  """Returns the shortest signed distance between two places of the periodic terrain."""
  return (distance + SIDE / 2) % SIDE - SIDE / 2
