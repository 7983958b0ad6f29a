"""Splits, views and contents of synthetic multi-object sets; scenes are drawn when written."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
from typing import Any

import numpy as np

from data_prep.core import factors, views
from data_prep.core.contents import Contents, Example, Split, View
from data_prep.core.request import GENERATED_LICENCE, About
from data_prep.core.sources import package_version
from data_prep.synthetic import draws

_EVALUATED = 320  # scenes; evaluations of the real sets use the first 320 test scenes
_NUMBERS = {'train': 0, 'test': 1, 'all': 2}  # split -> its number


@dataclasses.dataclass(frozen=True)
class GeneratedScenes:
  """Examples of one split; `make` draws one from its own generator."""

  make: Callable[[np.random.Generator], Example]
  seed: int
  split: str

  def __call__(self, start: int, stop: int) -> Iterator[Example]:
    for index in range(start, stop):
      yield self.make(draws.generator(self.seed, _NUMBERS[self.split], index))


def splits(
  make: Callable[[np.random.Generator], Example], counts: Mapping[str, int], seed: int = 0
) -> dict[str, Split]:
  """Makes splits of generated scenes.

  Args:
    make: draws an example; it must pickle.
    counts: `train`, `test` or `all` -> number of scenes.
    seed: seed of the data set; sets with the same `make` need different seeds.
  """
  return {name: Split(count, GeneratedScenes(make, seed, name)) for name, count in counts.items()}


def train_and_test_views(tests: int) -> dict[str, View]:
  """Returns the views of a set with `tests` scenes in `test`; the first 320 are the view test."""
  return {
    'train': View('train', 'all of train'),
    'valid': views.span('test', _EVALUATED, tests),
    'test': views.span('test', 0, _EVALUATED),
  }


def about_scenes(side: int, entities: int, splits: str, built: str, **more: Any) -> About:
  """Returns the facts about a set; `more` are further fields of `About`."""
  return About(
    records=f'{side}x{side}x3, segmentation, factors of {entities} entities',
    splits=splits,
    built=built,
    samples_publishable=True,
    embedded=True,
    **{'licence': GENERATED_LICENCE, **more},
  )


def scene_set(
  about: About,
  family: str,
  side: int,
  entities: int,
  *,
  packages: tuple[str, ...] = ('numpy',),
  source: str = 'generated',
  **facts: Any,
) -> Contents:
  """Assembles a set of generated scenes; the arguments are those of `factors.object_set`.

  Args:
    packages: names of packages whose versions may change the records.
    about, family, side, entities, source, facts: as in `factors.object_set`.
  """
  versions = {name: package_version(name) for name in packages}
  return factors.object_set(
    about, family, side, entities, source=source, packages=versions, **facts
  )
