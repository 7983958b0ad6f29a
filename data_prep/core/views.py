"""Views: the rules by which papers split their data, with their recorded seeds."""

from collections.abc import Mapping

import numpy as np

from data_prep.core.contents import Split, View


def whole(splits: Mapping[str, Split], prefix: str = '', **names: str) -> dict[str, View]:
  """Returns a view of each whole split, or `names` as view=split: `valid='test'`."""
  names = names or {name: name for name in splits}
  return {f'{prefix}{view}': View(split, f'all of {split}') for view, split in names.items()}


def head_of_permutation(split: str, count: int, seed: int, size: int) -> tuple[View, View]:
  """Splits a seeded permutation of `count` examples into (rest, first `size`)."""
  permutation = np.random.RandomState(seed).permutation(count)
  rule = f'numpy.random.RandomState({seed}).permutation({count})'
  return (
    View(split, f'{rule}[{size}:]', permutation[size:], seed),
    View(split, f'{rule}[:{size}]', permutation[:size], seed),
  )


def tail_of_permutation(
  split: str, count: int, seed: int, size: int, note: str = ''
) -> tuple[View, View]:
  """Splits a seeded permutation of `count` examples into (rest, last `size`)."""
  permutation = np.random.RandomState(seed).permutation(count)
  rule = f'numpy.random.RandomState({seed}).permutation({count})'
  return (
    View(split, f'{rule}[:-{size}]{note}', permutation[:-size], seed),
    View(split, f'{rule}[-{size}:]{note}', permutation[-size:], seed),
  )


def shuffled_halves(split: str, count: int, seed: int) -> tuple[View, View]:
  """Returns the halves of a shuffled split: validation and test set of Efficient-VDVAE."""
  order = np.arange(count)
  np.random.RandomState(seed).shuffle(order)
  rule = f'a = arange({count}); numpy.random.RandomState({seed}).shuffle(a); a'
  half = count // 2
  return (
    View(split, f'{rule}[:{half}]', order[:half], seed),
    View(split, f'{rule}[{half}:]', order[half:], seed),
  )


def span(split: str, start: int, stop: int) -> View:
  """Returns the view of the examples `start` <= index < `stop`, in order."""
  return View(split, f'{start} <= index < {stop}', np.arange(start, stop))
