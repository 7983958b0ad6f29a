"""Decoded records of one split; a small split is kept in memory."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import grain
import numpy as np

from hvae_tpu.data.datasets import Dataset
from hvae_tpu.errors import UserError

Batch = dict[str, np.ndarray]
_READ_AT_ONCE = 2**24  # bytes


@dataclasses.dataclass(frozen=True)
class _Shard:
  """A file and its number of records; ArrayRecord need not open it to count them."""

  filename: str
  skip: int
  take: int
  examples_in_shard: int


@dataclasses.dataclass(frozen=True)
class _Field:
  """Position of a field in a record, in bytes."""

  name: str
  dtype: np.dtype
  start: int
  stop: int
  shape: tuple[int, ...]

  def take(self, rows: np.ndarray) -> np.ndarray:
    """Takes the field [N, *shape] out of records, uint8 [N, bytes]."""
    part = np.ascontiguousarray(rows[:, self.start : self.stop])
    return part.view(self.dtype).reshape(len(rows), *self.shape)


class Records:
  """Reader of many records at a time, by number; picklable for worker processes.

  Args:
    dataset: the opened data set.
    split: name of the split.
    fields: names of the fields; (): all.
    cache_bytes: a split up to this size is read once and kept in memory.
  """

  def __init__(
    self, dataset: Dataset, split: str, fields: Sequence[str] = (), cache_bytes: int = 0
  ):
    check_fields(dataset.card, fields)
    shards = dataset.card['splits'][split]['shards']
    self._dataset = dataset
    self._files = [dataset.directory / shard['file'] for shard in shards]
    counts = [shard['count'] for shard in shards]
    self._stops = np.cumsum(counts)
    self._source = grain.sources.ArrayRecordDataSource(
      [_Shard(str(file), 0, count, count) for file, count in zip(self._files, counts, strict=True)]
    )
    self._fields, self._bytes = _layout(dataset.card['fields'], fields)
    count = int(self._stops[-1])
    self._cache = self._read_all(count) if count * self._bytes <= cache_bytes else None

  def read(self, numbers: np.ndarray) -> Batch:
    """Reads the records of these numbers, in this order: field -> [N, ...].

    Raises:
      UserError: a damaged record.
    """
    if self._cache is not None:
      return {name: array[numbers] for name, array in self._cache.items()}
    return self._decode(numbers)

  @property
  def in_memory(self) -> bool:
    """Whether the split is kept in memory."""
    return self._cache is not None

  def _read_all(self, count: int) -> Batch:
    """Reads the whole split of `count` records, in groups of `_READ_AT_ONCE` bytes."""
    group = max(1, _READ_AT_ONCE // self._bytes)
    parts = [
      self._decode(np.arange(start, min(start + group, count))) for start in range(0, count, group)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

  def _decode(self, numbers: np.ndarray) -> Batch:
    """Reads records from their files."""
    places = [int(number) for number in numbers]
    try:
      raw = self._source.__getitems__(places)
    except RuntimeError:
      raw = [self._read_one(place) for place in places]  # names the damaged one
    for place, record in zip(places, raw, strict=True):
      if len(record) != self._bytes:
        raise self._damaged(place, f'must have {self._bytes} bytes, not {len(record)}')
    rows = np.frombuffer(b''.join(raw), np.uint8).reshape(len(raw), self._bytes)
    return {field.name: field.take(rows) for field in self._fields}

  def _read_one(self, number: int) -> bytes:
    """Reads one record; UserError if it is damaged."""
    try:
      return self._source[number]
    except RuntimeError as error:
      raise self._damaged(number, f'cannot be read ({error})') from error

  def _damaged(self, number: int, problem: str) -> UserError:
    """Returns the error for a damaged record, with its file and its position there."""
    shard = int(np.searchsorted(self._stops, number, side='right'))
    position = number - (self._stops[shard - 1] if shard else 0)
    return self._dataset.damaged(self._files[shard], f'is damaged: record {position} {problem}')


def check_fields(card: dict[str, Any], fields: Sequence[str]) -> None:
  """Raises UserError if the records lack one of these fields."""
  if missing := [name for name in fields if name not in card['fields']]:
    raise UserError(
      f'config.data.fields names {", ".join(map(repr, missing))}, but the records of '
      f'{card["name"]} have only: {", ".join(card["fields"])}; choose another config.data.name'
    )


def _layout(card_fields: dict[str, Any], names: Sequence[str]) -> tuple[list[_Field], int]:
  """Returns the positions of the named fields (all, if none are named), and the record's size."""
  fields, start = [], 0
  for name, field in card_fields.items():
    dtype = np.dtype(field['dtype']).newbyteorder('<')
    stop = start + int(np.prod(field['shape'], dtype=np.int64)) * dtype.itemsize
    if name in names or not names:
      fields.append(_Field(name, dtype, start, stop, tuple(field['shape'])))
    start = stop
  return fields, start
