"""Walks over open land of blocks, from goal to goal, 64x64 colour video; generated, no download.

A stand-in for MineRL Navigate: hills, water, trees and changing daylight, seen on a walk towards
shining pillars. It has none of the game's textures, animals or jumps.
"""

import dataclasses

import numpy as np

from data_prep.core import clips
from data_prep.core.contents import Contents
from data_prep.core.request import GENERATED_LICENCE, About, Request
from data_prep.synthetic import sky, terrain, terrain_view, terrain_walk, trees
from data_prep.synthetic.draws import generator

_SEED = 0
_FRAMES = 500
_SEQUENCES = {'train': 100, 'test': 20}

ABOUT = About(
  records=f'{clips.CHUNK} frames of 64x64x3',
  splits='train 100 x 500 frames, test 20 x 500; views train, valid (= test), test',
  built='0.4 GB',
  licence=GENERATED_LICENCE,
  samples_publishable=True,
  embedded=True,
)


@dataclasses.dataclass(frozen=True)
class TerrainWalks:
  """Videos of walks, each over its own land."""

  split: int
  frames: int = _FRAMES

  def __call__(self, sequence: int) -> np.ndarray:
    """Renders one sequence, uint8 [frames, 64, 64, 3]."""
    rng = generator(_SEED, self.split, sequence)
    land = terrain.generate(rng)
    walk = terrain_walk.walk(rng, land, self.frames)
    scene = terrain_view.Landscape(
      land=land.with_goals(walk.goal_row, walk.goal_column),
      trees=trees.plant(rng, land, walk),
      clouds=sky.draw_clouds(rng),
      daylight=terrain_view.daylight(rng, self.frames),
    )
    return terrain_view.film(scene, walk.poses)


def load(request: Request) -> Contents:
  """Generates a land for each sequence; the two splits have different lands."""
  del request  # this set has no options
  return clips.video_set(
    ABOUT,
    (terrain_view.SIZE, terrain_view.SIZE, 3),
    dict.fromkeys(_SEQUENCES, _FRAMES),
    splits={
      split: clips.split_of_film(TerrainWalks(number), (_FRAMES,) * count)
      for number, (split, count) in enumerate(_SEQUENCES.items())
    },
    source='generated',
    preprocessing='columns of blocks after five octaves of value noise; trees as flat pictures; '
    'the camera walks at 0.215 block per frame from goal to goal; daylight drifts; ray casting '
    'at 128x128, averaged to 64x64; Philox key (sequence, split), seed 0',
    records_per_shard=250,  # 10 whole sequences
  )
