"""Contents of a data set as a builder returns them: fields, splits, views, and facts for the card.

Everything here pickles: the shards of a split may be written by worker processes, each of which
gets the contents once.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
from typing import Any

import numpy as np

from data_prep.core.request import About

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

  `examples` must pickle: an instance of a class at the top of a module, not a closure. The example
  of an index depends on the index alone, never on the range or on earlier calls.
  """

  count: int
  examples: Callable[[int, int], Iterator[Example]]


@dataclasses.dataclass(frozen=True)
class View:
  """Examples of one split, by index and in this order; without `indices`, the whole split.

  `rule` describes in words or code how the indices are computed; `seed` is its seed, if any.
  """

  split: str
  rule: str
  indices: np.ndarray | None = None
  seed: int | None = None


@dataclasses.dataclass(frozen=True)
class CardInfo:
  """Facts for the card about the origin. `version` goes up when a builder's records change."""

  version: int
  source: str
  packages: Mapping[str, str]  # name -> version
  files: Mapping[str, str]  # name -> hex SHA-256
  preprocessing: str
  licence: str
  samples_publishable: bool  # whether public documents may show pictures made from it
  variant: str = ''  # version of the data set, if several have this name; configs can require one
  details: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # JSON values for readers


@dataclasses.dataclass(frozen=True)
class Contents:
  """Input of `write_dataset`; `checks` are the builder's lines of the check list.

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


def make_contents(
  about: About,
  *,
  fields: Mapping[str, Field],
  splits: Mapping[str, Split],
  views: Mapping[str, View],
  source: str,
  preprocessing: str,
  container: str = 'none, generated',
  published: tuple[Mapping[str, str], tuple[str, ...]] = ({}, ()),
  checks: tuple[str, ...] = (),
  variant: str = '',
  version: int = 1,
  packages: Mapping[str, str] | None = None,
  details: Mapping[str, Any] | None = None,
  records_per_shard: int = 16384,
  compression: str = 'uncompressed',
) -> Contents:
  """Assembles the contents of a data set.

  Args:
    about: gives the licence, and whether samples may be published.
    container: kind of the raw files, for the check list.
    published: hash of each raw file, and the lines of the check list about these hashes.
    checks: further lines of the check list.
    fields, splits, views, records_per_shard, compression: as in `Contents`.
    source, preprocessing, variant, version, packages, details: as in `CardInfo`.
  """
  files, hash_lines = published
  return Contents(
    fields=fields,
    splits=splits,
    views=views,
    info=CardInfo(
      version=version,
      source=source,
      packages=packages or {},
      files=files,
      preprocessing=preprocessing,
      licence=about.licence,
      samples_publishable=about.samples_publishable,
      variant=variant,
      details=details or {},
    ),
    checks=(
      f'[ok] container: {container}',
      *([f'[ok] variant: {variant}'] if variant else []),
      *hash_lines,
      *checks,
    ),
    records_per_shard=records_per_shard,
    compression=compression,
  )


def split_of_arrays(**arrays: np.ndarray) -> Split:
  """Makes a split of arrays in memory, one array [N, ...] per field."""
  counts = {name: len(array) for name, array in arrays.items()}
  if len(set(counts.values())) != 1:
    raise ValueError(f'fields of one split have different lengths: {counts}')
  return Split(next(iter(counts.values())), ArrayExamples(arrays))


def limited(contents: Contents, limit: int) -> Contents:
  """Keeps the first `limit` records of each split, and the examples of views among them."""
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


def validate(contents: Contents) -> None:
  """Raises ValueError if the fields, splits and views of a builder contradict each other."""
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
  """Returns the index list of a view, int64 [count]."""
  if view.indices is None:
    return np.arange(contents.splits[view.split].count, dtype='<i8')
  return np.asarray(view.indices, '<i8')
