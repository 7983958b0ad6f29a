"""Splits and contents of synthetic video sets, whose sequences are rendered when written."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import numpy as np

from data_prep.core import clips
from data_prep.core.contents import Contents, Split
from data_prep.core.request import GENERATED_LICENCE, About
from data_prep.synthetic.draws import generator

SIZE = 64  # height and width of all synthetic videos, pixels
Render = Callable[[np.random.Generator, int], np.ndarray]  # (rng, frames) -> uint8 [T, H, W, C]


@dataclasses.dataclass(frozen=True)
class GeneratedFilms:
  """Sequences of one split; `render` makes each from its own generator, and must pickle."""

  render: Render
  split: int
  frames: int
  seed: int = 0

  def __call__(self, sequence: int) -> np.ndarray:
    """Renders one sequence, uint8 [frames, H, W, C]."""
    return self.render(generator(self.seed, self.split, sequence), self.frames)


def split_of_films(render: Render, split: int, frames: int, count: int) -> Split:
  """Makes split number `split` of `count` sequences."""
  return clips.split_of_film(GeneratedFilms(render, split, frames), (frames,) * count)


def about_worlds(frames: int, sequences: Mapping[str, int], built: str) -> About:
  """Returns the facts about a set of colour videos; `sequences` is split -> number."""
  return About(
    records=f'{clips.CHUNK} frames of {SIZE}x{SIZE}x3',
    splits=f'train {sequences["train"]} x {frames} frames, test {sequences["test"]} x {frames}; '
    'views train, valid (= test), test',
    built=built,
    licence=GENERATED_LICENCE,
    samples_publishable=True,
    embedded=True,
  )


def world_set(
  about: About, render: Render, frames: int, sequences: Mapping[str, int], **facts: Any
) -> Contents:
  """Assembles a set of colour videos; `facts` are further arguments of `clips.video_set`."""
  return clips.video_set(
    about,
    (SIZE, SIZE, 3),
    dict.fromkeys(sequences, frames),
    splits={
      split: split_of_films(render, number, frames, count)
      for number, (split, count) in enumerate(sequences.items())
    },
    source='generated',
    **facts,
  )
