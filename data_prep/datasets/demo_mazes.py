"""Walks through coloured mazes, 64x64 colour video; generated, no download.

A stand-in for the mazes of GQN. A place looks the same when the walk returns to it, so samples show
what a model remembers over hundreds of frames.
"""

import numpy as np

from data_prep.core.contents import Contents
from data_prep.core.request import Request
from data_prep.synthetic import films, maze_view, mazes

_FRAMES = 300
_SEQUENCES = {'train': 400, 'test': 40}
ABOUT = films.about_worlds(_FRAMES, _SEQUENCES, built='0.2 GB')


def render_walk(rng: np.random.Generator, frames: int) -> np.ndarray:
  """Renders a walk through its own maze, uint8 [frames, 64, 64, 3]."""
  wall = mazes.carve(rng)
  poses = mazes.walk(rng, wall, frames)
  return maze_view.film(wall, maze_view.decorate(rng), poses)


def load(request: Request) -> Contents:
  """Generates a maze for each sequence; the two splits have different mazes."""
  del request  # this set has no options
  return films.world_set(
    ABOUT,
    render_walk,
    _FRAMES,
    _SEQUENCES,
    preprocessing='perfect mazes of 4x4 cells by depth-first carving, a colour per wall block; '
    'the camera walks at 1/7 block per frame through random ways, turns on quarter circles and '
    'goes back at dead ends; ray casting at 128x128, averaged to 64x64; Philox key (sequence, '
    'split), seed 0',
    records_per_shard=300,  # 20 whole sequences
  )
