"""A data set of the form of `demo_moving_mnist`, small enough for tests: a square that moves."""

import pathlib

import numpy as np

from data_prep.core import clips, records
from data_prep.core.request import About


def write(root: pathlib.Path) -> None:
  """Writes twelve sequences of 20 frames in either split, as `root`/demo_moving_mnist."""
  squares = clips.video_set(
    About('', '', '', licence='none', samples_publishable=True),
    (64, 64, 1),
    {'train': 20, 'test': 20},
    splits={name: clips.split_of_film(_film, [20] * 12) for name in ('train', 'test')},
    source='made here',
    preprocessing='none',
    records_per_shard=12,
  )
  records.write_dataset(root / 'demo_moving_mnist', 'demo_moving_mnist', squares)


def _film(number: int) -> np.ndarray:
  video = np.zeros((20, 64, 64, 1), np.uint8)
  for t in range(20):
    x = (5 * number + 2 * t) % 50
    video[t, 20:30, x : x + 10] = 200
  return video
