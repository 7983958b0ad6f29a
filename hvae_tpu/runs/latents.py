"""Latent variables of a data set on disk: writing and reading them.

A folder holds `latents.json`, and shards in one or two formats:

latents-00000.npz             arrays with the examples along axis 0, with `index` and `source`
latents-00000.array_record    a record per example, little-endian: `index` (int64), length of
                              `source` (int64), `source` (UTF-8), then for every group with any
                              stored variate `mean`, `scale` and `z`, or `z` alone (float32
                              [h, w, stored variates])
"""

from collections.abc import Sequence
import contextlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from array_record.python import array_record_module
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.nn.distributions import Group, Latents
from hvae_tpu.storage import files, folders

CARD = 'latents.json'
FORMAT = 2  # version of the folders that this module reads
FORMATS = ('array_record', 'npz')
PARTS = ('mean', 'scale', 'z')


class Encoded(NamedTuple):
  """Latent variables of one example; for several examples, everything has a leading [n].

  Attributes:
    index: number of the record in its source.
    source: `<data set>/<split>`.
    latents: (mean, scale, z) of every group, float32 [h, w, V]; 0 for a pruned variate, None for a
      part that was not stored.
  """

  index: int | np.ndarray
  source: str | np.ndarray
  latents: Latents


def check_formats(formats: Sequence[str]) -> None:
  """Raises UserError if there is no format, or an unknown one."""
  if not formats or set(formats) - set(FORMATS):
    raise UserError(f'config.encode.formats={formats} must be some of {", ".join(FORMATS)}')


class Writer:
  """A context manager that writes examples, a batch at a time.

  Args:
    directory: folder to make; an older one is replaced at the end.
    source: source of the examples, `<data set>/<split>`.
    about: entries of the card beside the layout: `origin`, `batch_size`, ...
    variates: [L, V] bool, the variates to store; None: all.
    parts: some of `PARTS`, with `z`.
    formats: some of `FORMATS`.
    shard_bytes: approximate size of a shard.

  Raises:
    UserError: an unknown format, or a place that cannot be written.
  """

  def __init__(
    self,
    directory: Path,
    source: str,
    about: dict[str, Any],
    variates: np.ndarray | None,
    parts: tuple[str, ...],
    formats: tuple[str, ...],
    shard_bytes: int,
  ):
    check_formats(formats)
    self._directory, self._source, self._about = directory, source, about
    self._variates, self._parts, self._formats, self._shard_bytes = (
      variates,
      parts,
      formats,
      shard_bytes,
    )
    self._folder = folders.replacing(directory)
    self._pending, self._shards, self._sides = [], [], []

  def __enter__(self) -> 'Writer':
    self._partial = self._folder.__enter__()
    return self

  def __exit__(self, kind, error, trace) -> None:
    if kind is not None:
      self._folder.__exit__(kind, error, trace)
      return
    with contextlib.ExitStack() as stack:
      stack.push(self._folder)
      self._finish()

  def add(self, index: np.ndarray, latents: Latents) -> None:
    """Appends examples: their record numbers [n], and latents with leading [n]."""
    if self._variates is None:
      self._variates = np.ones((len(latents), latents[0].z.shape[-1]), bool)
    self._sides = [list(group.z.shape[1:3]) for group in latents]
    arrays = {'index': np.asarray(index, '<i8')}
    for number, (group, mask) in enumerate(zip(latents, self._variates, strict=True)):
      for part in self._parts if mask.any() else ():
        values = np.asarray(getattr(group, part), '<f4')
        arrays[f'{number:03d}/{part}'] = values[..., mask]
    self._pending.append(arrays)
    if sum(a.nbytes for arrays in self._pending for a in arrays.values()) >= self._shard_bytes:
      self._flush()

  def _flush(self) -> None:
    """Writes the examples since the last shard as a shard."""
    if not self._pending:
      return
    first = self._pending[0]
    arrays = {name: np.concatenate([part[name] for part in self._pending]) for name in first}
    self._pending.clear()
    stem = self._partial / f'latents-{len(self._shards):05d}'
    count = len(arrays['index'])
    if 'npz' in self._formats:
      np.savez(stem.with_suffix('.npz'), source=np.full(count, self._source), **arrays)
    if 'array_record' in self._formats:
      _write_records(stem.with_suffix('.array_record'), self._source, arrays)
    self._shards.append(count)

  def _finish(self) -> None:
    """Writes the last shard and the card."""
    self._flush()
    if not self._shards:
      raise UserError(f'{self._directory}: there are no examples to write; choose another split')
    layout = {
      'format': FORMAT,
      'source': self._source,
      'shards': self._shards,
      'formats': list(self._formats),
      'parts': list(self._parts),
      'num_variates': self._variates.shape[1],
      'sides': self._sides,
      'variates': [np.flatnonzero(mask).tolist() for mask in self._variates],
    }
    files.save_json(self._partial / CARD, {**self._about, **layout}, indent=1)


def _write_records(path: Path, source: str, arrays: dict[str, np.ndarray]) -> None:
  """Writes a shard of records; see the head of this file."""
  # Every record alone: any other group size makes random access slow.
  writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1,uncompressed')
  index, *groups = arrays.values()
  name = source.encode()
  try:
    for row, number in enumerate(index):
      head = np.array([number, len(name)], '<i8').tobytes() + name
      writer.write(head + b''.join(np.ascontiguousarray(a[row]).tobytes() for a in groups))
    writer.close()
  except RuntimeError as error:  # the library's error for a full disk
    raise OSError(str(error)) from error


class StoredLatents(Sequence):
  """An opened folder of latents: a sequence of `Encoded`.

  Attributes:
    card: contents of `latents.json`.
    variates: [L, V] bool, the stored variates.
  """

  def __init__(self, directory: Path, card: dict[str, Any]):
    self.card, self._directory = card, directory
    self.variates = np.zeros((len(card['variates']), card['num_variates']), bool)
    for row, indices in zip(self.variates, card['variates'], strict=True):
      row[indices] = True
    self._stops = np.cumsum(card['shards'])
    self._shard = None, {}  # path and contents of the shard that was read last

  def __len__(self) -> int:
    return int(self._stops[-1])

  def __getitem__(self, number: int) -> Encoded:
    if not -len(self) <= number < len(self):
      raise IndexError(f'example {number} of {len(self)}')
    index, source, latents = self.read([range(len(self))[number]])
    rows = (Group(*(None if a is None else a[0] for a in group)) for group in latents)
    return Encoded(int(index[0]), str(source[0]), tuple(rows))

  def read(self, numbers: Sequence[int]) -> Encoded:
    """Reads the examples at these positions, with a leading [n].

    Raises:
      UserError: a shard is missing or damaged.
    """
    rows = [self._row(int(number)) for number in numbers]
    index, source = (np.array([row[name] for row in rows]) for name in ('index', 'source'))
    groups = []
    for number, (indices, side) in enumerate(
      zip(self.card['variates'], self.card['sides'], strict=True)
    ):
      parts = {}
      for part in self.card['parts']:
        parts[part] = np.zeros((len(rows), *side, self.card['num_variates']), np.float32)
        if indices:
          parts[part][..., indices] = np.stack([row[f'{number:03d}/{part}'] for row in rows])
      groups.append(Group(*(parts.get(part) for part in PARTS)))
    return Encoded(index, source, tuple(groups))

  def _row(self, number: int) -> dict[str, Any]:
    """Reads the arrays of one example, without pruned variates."""
    shard = int(np.searchsorted(self._stops, number, side='right'))
    row = number - int(self._stops[shard] - self.card['shards'][shard])
    form = self.card['formats'][0]
    path = self._directory / f'latents-{shard:05d}.{form}'
    try:
      if self._shard[0] != path:
        self._shard = path, _open_shard(path, form)
      if form == 'npz':
        return {name: array[row] for name, array in self._shard[1].items()}
      return self._decoded(self._shard[1].read([row])[0])
    except Exception as error:  # damage shows as many types
      raise UserError(f'{path} cannot be read ({error}); run --mode=encode again') from error

  def _decoded(self, record: bytes) -> dict[str, Any]:
    """Decodes a record; ValueError if it has another size."""
    index, length = np.frombuffer(record, '<i8', 2).tolist()
    start = 16 + length
    arrays = {'index': index, 'source': record[16:start].decode()}
    for number, (indices, side) in enumerate(
      zip(self.card['variates'], self.card['sides'], strict=True)
    ):
      for part in self.card['parts'] if indices else ():
        shape = (*side, len(indices))
        values = np.frombuffer(record, '<f4', int(np.prod(shape)), start)
        arrays[f'{number:03d}/{part}'] = values.reshape(shape)
        start += values.nbytes
    if start != len(record):
      raise ValueError(f'a record has {len(record)} bytes, not {start}')
    return arrays


def _open_shard(path: Path, form: str) -> Any:
  """Opens a shard: a reader of records, or a dict of arrays."""
  if form == 'array_record':
    if not path.is_file():
      raise FileNotFoundError('no such file')
    return array_record_module.ArrayRecordReader(str(path))
  with np.load(path) as arrays:
    return dict(arrays)


def open_latents(path: str | os.PathLike) -> StoredLatents:
  """Opens a folder that `--mode=encode` wrote.

  Raises:
    UserError: the folder has no card, a damaged one, or one of another version.
  """
  path = Path(path)
  card = files.read_json(path / CARD, 'give a folder that --mode=encode wrote')
  if card.get('format') != FORMAT:
    raise UserError(
      f'{path} is of format {card.get("format")}, but this version reads format {FORMAT}; run '
      f'--mode=encode again'
    )
  if wrong := _damaged_entries(card):
    raise UserError(
      f'{path / CARD} is damaged: {", ".join(wrong)} missing, or not as written; run --mode=encode '
      f'again'
    )
  return StoredLatents(path, card)


def _damaged_entries(card: dict[str, Any]) -> list[str]:
  """Returns the entries of a card that are missing, or not as reading and decoding need them."""
  number = lambda v: type(v) is int and v >= 0
  numbers = lambda v: isinstance(v, list) and all(map(number, v))
  among = lambda v, names: isinstance(v, list) and bool(v) and all(name in names for name in v)
  sides, size = card.get('sides'), card.get('num_variates')
  fits = {
    'source': lambda v: isinstance(v, str),
    'origin': lambda v: isinstance(v, dict),
    'batch_size': lambda v: number(v) and v > 0,
    'seed': number,
    'shards': lambda v: numbers(v) and 0 not in v and bool(v),
    'formats': lambda v: among(v, FORMATS),
    'parts': lambda v: among(v, PARTS) and 'z' in v,
    'num_variates': number,
    'sides': lambda v: isinstance(v, list) and all(numbers(s) and len(s) == 2 for s in v),
    'variates': lambda v: (
      isinstance(v, list)
      and isinstance(sides, list)
      and len(v) == len(sides)
      and number(size)
      and all(numbers(row) and max(row, default=-1) < size for row in v)
    ),
  }
  return [name for name, check in fits.items() if name not in card or not check(card[name])]
