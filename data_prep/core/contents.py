"""What a builder hands over: fields, splits, views, and what the data card tells of the origin.

Everything here pickles: the shards of a split may be written by worker processes, each of which
gets the contents once.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
from typing import Any

import numpy as np

Example = Mapping[str, np.ndarray]
PIXEL_FIELDS = ('image', 'video')


@dataclasses.dataclass(frozen=True)
class Field:
  """One array of a record; `image` and `video` are uint8 with channels last."""

  dtype: str
  shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Split:
  """`count` examples in canonical order; `examples(start, stop)` yields those of a range.

  `examples` must pickle: an instance of a class at the top of a module, not a closure. What it
  yields for an index depends on the index alone, never on the range or on earlier calls.
  """

  count: int
  examples: Callable[[int, int], Iterator[Example]]


@dataclasses.dataclass(frozen=True)
class View:
  """Examples of one split, by index and in this order; without `indices`, the whole split.

  `rule` says in words or code how the indices come about; `seed` is the number in it, if any.
  """

  split: str
  rule: str
  indices: np.ndarray | None = None
  seed: int | None = None


@dataclasses.dataclass(frozen=True)
class CardInfo:
  """What the card tells of the origin. `version` goes up when a builder's records change."""

  version: int
  source: str
  packages: Mapping[str, str]  # name -> version
  files: Mapping[str, str]  # name -> hex SHA-256
  preprocessing: str
  licence: str
  samples_publishable: bool  # may pictures made from it stand in public documents?
  variant: str = ''  # which of the sets that go by this name; configs can require one
  details: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # JSON values for readers


@dataclasses.dataclass(frozen=True)
class Contents:
  """What a builder hands to `write_dataset`; `checks` are its own lines of the check list.

  `compression` is `uncompressed`, or `zstd` for pictures from 256 px on and for long videos.
  """

  fields: Mapping[str, Field]
  splits: Mapping[str, Split]
  views: Mapping[str, View]
  info: CardInfo
  checks: tuple[str, ...] = ()
  records_per_shard: int = 16384
  compression: str = 'uncompressed'


@dataclasses.dataclass(frozen=True)
class ArrayExamples:
  """Examples held in memory: one array [N, ...] per field."""

  arrays: Mapping[str, np.ndarray]

  def __call__(self, start: int, stop: int) -> Iterator[Example]:
    for index in range(start, stop):
      yield {name: array[index] for name, array in self.arrays.items()}


def split_of_arrays(**arrays: np.ndarray) -> Split:
  """A split held in memory: one array [N, ...] per field."""
  counts = {name: len(array) for name, array in arrays.items()}
  if len(set(counts.values())) != 1:
    raise ValueError(f'fields of one split have different lengths: {counts}')
  return Split(next(iter(counts.values())), ArrayExamples(arrays))


def limited(contents: Contents, limit: int) -> Contents:
  """The first `limit` records of each split, and the views of them."""
  splits = {
    name: dataclasses.replace(split, count=min(split.count, limit))
    for name, split in contents.splits.items()
  }
  views = {
    name: view
    if view.indices is None
    else dataclasses.replace(view, indices=view.indices[view.indices < limit])
    for name, view in contents.views.items()
  }
  return dataclasses.replace(contents, splits=splits, views=views)


def check(contents: Contents) -> None:
  """Raises ValueError if a builder's fields, splits and views do not fit together."""
  for name, field in contents.fields.items():
    if name == 'mask':
      raise ValueError("a field must not be called 'mask': batches use that name for padding")
    if name in PIXEL_FIELDS and np.dtype(field.dtype) != np.uint8:
      raise ValueError(f"field '{name}' must be uint8, not {field.dtype}")
  for name, split in contents.splits.items():
    if split.count < 1:
      raise ValueError(f"split '{name}' has no examples")
  for name, view in contents.views.items():
    count = contents.splits[view.split].count
    indices = indices_of(contents, view)
    if len(indices) and (indices.min() < 0 or indices.max() >= count):
      raise ValueError(f"view '{name}' points outside the {count} examples of '{view.split}'")
    if len(np.unique(indices)) != len(indices):
      raise ValueError(f"view '{name}' holds an example twice")


def indices_of(contents: Contents, view: View) -> np.ndarray:
  """The index list of a view, int64 [count]."""
  if view.indices is None:
    return np.arange(contents.splits[view.split].count, dtype='<i8')
  return np.asarray(view.indices, '<i8')
