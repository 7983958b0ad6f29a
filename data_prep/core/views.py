"""The rules by which the papers split their data, as views with their recorded seeds."""

from collections.abc import Mapping

import numpy as np

from data_prep.core.contents import Split, View


def whole(splits: Mapping[str, Split], prefix: str = '', **names: str) -> dict[str, View]:
  """A view of each whole split, or of the splits `names` maps to: `valid='test'`."""
  names = names or {name: name for name in splits}
  return {f'{prefix}{view}': View(split, f'all of {split}') for view, split in names.items()}


def head_of_permutation(split: str, count: int, seed: int, size: int) -> tuple[View, View]:
  """(rest, first `size`) of a seeded permutation of a split of `count` examples."""
  permutation = np.random.RandomState(seed).permutation(count)
  rule = f'numpy.random.RandomState({seed}).permutation({count})'
  return (
    View(split, f'{rule}[{size}:]', permutation[size:], seed),
    View(split, f'{rule}[:{size}]', permutation[:size], seed),
  )


def tail_of_permutation(
  split: str, count: int, seed: int, size: int, note: str = ''
) -> tuple[View, View]:
  """(rest, last `size`) of a seeded permutation of a split of `count` examples."""
  permutation = np.random.RandomState(seed).permutation(count)
  rule = f'numpy.random.RandomState({seed}).permutation({count})'
  return (
    View(split, f'{rule}[:-{size}]{note}', permutation[:-size], seed),
    View(split, f'{rule}[-{size}:]{note}', permutation[-size:], seed),
  )


def shuffled_halves(split: str, count: int, seed: int) -> tuple[View, View]:
  """The two halves of a split, shuffled: validation and test set of Efficient-VDVAE."""
  order = np.arange(count)
  np.random.RandomState(seed).shuffle(order)
  rule = f'a = arange({count}); numpy.random.RandomState({seed}).shuffle(a); a'
  half = count // 2
  return (
    View(split, f'{rule}[:{half}]', order[:half], seed),
    View(split, f'{rule}[{half}:]', order[half:], seed),
  )


def span(split: str, start: int, stop: int) -> View:
  """The examples from `start` to before `stop`, in order."""
  return View(split, f'{start} <= index < {stop}', np.arange(start, stop))
