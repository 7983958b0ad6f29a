"""Walks over open land of blocks, from goal to goal, 64x64 colour video; generated, no download.

A stand-in for MineRL Navigate: hills, water, trees and changing daylight, seen on a walk towards
shining pillars. It has none of the game's textures, animals or jumps.
"""

import numpy as np

from data_prep.core.contents import Contents
from data_prep.core.request import Request
from data_prep.synthetic import films, sky, terrain, terrain_view, terrain_walk, trees

_FRAMES = 500
_SEQUENCES = {'train': 100, 'test': 20}
ABOUT = films.about_worlds(_FRAMES, _SEQUENCES, built='0.4 GB')


def render_walk(rng: np.random.Generator, frames: int) -> np.ndarray:
  """Renders a walk over its own land, uint8 [frames, 64, 64, 3]."""
  land = terrain.generate(rng)
  walk = terrain_walk.walk(rng, land, frames)
  scene = terrain_view.Landscape(
    land=land.with_goals(walk.goal_row, walk.goal_column),
    trees=trees.plant(rng, land, walk),
    clouds=sky.draw_clouds(rng),
    daylight=terrain_view.daylight(rng, frames),
  )
  return terrain_view.film(scene, walk.poses)


def load(request: Request) -> Contents:
  """Generates a land for each sequence; the two splits have different lands."""
  del request  # this set has no options
  return films.world_set(
    ABOUT,
    render_walk,
    _FRAMES,
    _SEQUENCES,
    preprocessing='columns of blocks after five octaves of value noise; trees as flat pictures; '
    'the camera walks at 0.215 block per frame from goal to goal; daylight drifts; ray casting '
    'at 128x128, averaged to 64x64; Philox key (sequence, split), seed 0',
    records_per_shard=250,  # 10 whole sequences
  )
