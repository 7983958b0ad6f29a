"""Walks through coloured mazes, 64x64 colour video; generated, no download.

A stand-in for the mazes of GQN. A place looks the same when the walk returns to it, so samples show
what a model remembers over hundreds of frames.
"""

import dataclasses

import numpy as np

from data_prep.core import clips
from data_prep.core.contents import Contents
from data_prep.core.request import GENERATED_LICENCE, About, Request
from data_prep.synthetic import maze_view, mazes
from data_prep.synthetic.draws import generator

_SEED = 0
_FRAMES = 300
_SEQUENCES = {'train': 400, 'test': 40}

ABOUT = About(
  records=f'{clips.CHUNK} frames of 64x64x3',
  splits='train 400 x 300 frames, test 40 x 300; views train, valid (= test), test',
  built='0.2 GB',
  licence=GENERATED_LICENCE,
  samples_publishable=True,
  embedded=True,
)


@dataclasses.dataclass(frozen=True)
class MazeWalks:
  """Videos of walks, each through its own maze."""

  split: int
  frames: int = _FRAMES

  def __call__(self, sequence: int) -> np.ndarray:
    """Renders one sequence, uint8 [frames, 64, 64, 3]."""
    rng = generator(_SEED, self.split, sequence)
    wall = mazes.carve(rng)
    poses = mazes.walk(rng, wall, self.frames)
    return maze_view.film(wall, maze_view.decorate(rng), poses)


def load(request: Request) -> Contents:
  """Generates a maze for each sequence; the two splits have different mazes."""
  del request  # this set has no options
  return clips.video_set(
    ABOUT,
    (maze_view.SIZE, maze_view.SIZE, 3),
    dict.fromkeys(_SEQUENCES, _FRAMES),
    splits={
      split: clips.split_of_film(MazeWalks(number), (_FRAMES,) * count)
      for number, (split, count) in enumerate(_SEQUENCES.items())
    },
    source='generated',
    preprocessing='perfect mazes of 4x4 cells by depth-first carving, a colour per wall block; '
    'the camera walks at 1/7 block per frame through random ways, turns on quarter circles and '
    'goes back at dead ends; ray casting at 128x128, averaged to 64x64; Philox key (sequence, '
    'split), seed 0',
    records_per_shard=300,  # 20 whole sequences
  )
