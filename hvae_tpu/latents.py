"""Latent variables of a data set on disk, and how to read them.

A folder holds `latents.json`, and shards in one or two forms, which get their name when the folder
is complete:

latents-00000.npz             arrays with the examples first, and the name of the data set
latents-00000.array_record    a record per example: the bytes, little-endian, of `index` (int64),
                              then of every group with any variate `mean`, `scale`, `z`, or `z`
                              alone (float32 [h, w, kept])
"""

from collections.abc import Sequence
import json
import os
from pathlib import Path
import shutil
from typing import Any, NamedTuple

from array_record.python import array_record_module
import numpy as np

from hvae_tpu.distributions import Group, Latents
from hvae_tpu.errors import UserError

CARD = 'latents.json'
FORMAT = 1  # of the folders that this file reads
FORMATS = ('array_record', 'npz')
PARTS = ('mean', 'scale', 'z')


class Encoded(NamedTuple):
  """Latent variables of one example.

  Attributes:
    index: of the record in its split.
    dataset: name of the data set.
    latents: per group (mean, scale, z), float32 [h, w, V]; 0 where a variate was pruned, and None
      for what was not stored.
  """

  index: int
  dataset: str
  latents: Latents


class Writer:
  """Writes examples, a batch at a time; a context manager.

  Args:
    directory: the folder to make; an older one is replaced at the end.
    about: what the card should say beside the layout: `dataset`, `split`, `origin`, ...
    variates: [L, V] bool, those that are kept; the others are not stored. None is all.
    parts: of `PARTS`; `z` must be among them.
    formats: of `FORMATS`.
    shard_bytes: about the size of a shard.

  Raises:
    UserError: an unknown format, or a place that cannot be written.
  """

  def __init__(
    self,
    directory: Path,
    about: dict[str, Any],
    variates: np.ndarray | None,
    parts: tuple[str, ...],
    formats: tuple[str, ...],
    shard_bytes: int,
  ):
    if not formats or set(formats) - set(FORMATS):
      raise UserError(f'config.encode.formats={formats} must be some of {", ".join(FORMATS)}')
    self._directory, self._about = directory, about
    self._variates, self._parts, self._formats, self._shard_bytes = (
      variates,
      parts,
      formats,
      shard_bytes,
    )
    self._partial = directory.with_name(f'.{directory.name}.{os.getpid()}')
    self._pending, self._shards, self._sides = [], [], []

  def __enter__(self) -> 'Writer':
    try:
      shutil.rmtree(self._partial, ignore_errors=True)
      self._partial.mkdir(parents=True)
    except OSError as error:
      raise UserError(f'{self._directory} cannot be written ({error})') from error
    return self

  def __exit__(self, kind, error, trace) -> None:
    try:
      if kind is None:
        self._finish()
      elif isinstance(error, OSError):
        raise UserError(f'{self._directory} cannot be written ({error})') from error
    finally:
      shutil.rmtree(self._partial, ignore_errors=True)

  def add(self, index: np.ndarray, latents: Latents) -> None:
    """Appends examples: their record numbers [n], and latents with leading [n]."""
    if self._variates is None:
      self._variates = np.ones((len(latents), latents[0].z.shape[-1]), bool)
    self._sides = [list(group.z.shape[1:3]) for group in latents]
    arrays = {'index': np.asarray(index, '<i8')}
    for number, (group, kept) in enumerate(zip(latents, self._variates, strict=True)):
      for part in self._parts if kept.any() else ():
        values = np.asarray(getattr(group, part), '<f4')
        arrays[f'{number:03d}/{part}'] = values[..., kept]
    self._pending.append(arrays)
    if sum(a.nbytes for arrays in self._pending for a in arrays.values()) >= self._shard_bytes:
      self._flush()

  def _flush(self) -> None:
    if not self._pending:
      return
    first = self._pending[0]
    arrays = {name: np.concatenate([part[name] for part in self._pending]) for name in first}
    self._pending.clear()
    stem = self._partial / f'latents-{len(self._shards):05d}'
    if 'npz' in self._formats:
      np.savez(stem.with_suffix('.npz'), dataset=self._about['dataset'], **arrays)
    if 'array_record' in self._formats:
      _write_records(stem.with_suffix('.array_record'), arrays)
    self._shards.append(len(arrays['index']))

  def _finish(self) -> None:
    self._flush()
    if not self._shards:
      raise UserError(f'{self._directory}: there are no examples to write; choose another split')
    layout = {
      'format': FORMAT,
      'shards': self._shards,
      'formats': list(self._formats),
      'parts': list(self._parts),
      'num_variates': self._variates.shape[1],
      'sides': self._sides,
      'variates': [np.flatnonzero(kept).tolist() for kept in self._variates],
    }
    (self._partial / CARD).write_text(json.dumps({**self._about, **layout}, indent=1) + '\n')
    old = self._directory.with_name(f'.{self._directory.name}.old-{os.getpid()}')
    if self._directory.exists():
      self._directory.rename(old)
    self._partial.rename(self._directory)
    shutil.rmtree(old, ignore_errors=True)


def _write_records(path: Path, arrays: dict[str, np.ndarray]) -> None:
  # Every record alone: any other group size makes random access slow.
  writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1,uncompressed')
  for row in range(len(arrays['index'])):
    writer.write(b''.join(np.ascontiguousarray(a[row]).tobytes() for a in arrays.values()))
  writer.close()


class Stored(Sequence):
  """A folder of latents, opened: a sequence of `Encoded`.

  Attributes:
    card: `latents.json`.
    variates: [L, V] bool, those that were stored.
  """

  def __init__(self, directory: Path, card: dict[str, Any]):
    self.card, self._directory = card, directory
    self.variates = np.zeros((len(card['variates']), card['num_variates']), bool)
    for row, kept in zip(self.variates, card['variates'], strict=True):
      row[kept] = True
    self._stops = np.cumsum(card['shards'])
    self._shard = None, {}  # the one that was read last

  def __len__(self) -> int:
    return int(self._stops[-1])

  def __getitem__(self, number: int) -> Encoded:
    if not -len(self) <= number < len(self):
      raise IndexError(f'example {number} of {len(self)}')
    index, latents = self.read([range(len(self))[number]])
    rows = (Group(*(None if a is None else a[0] for a in group)) for group in latents)
    return Encoded(int(index[0]), self.card['dataset'], tuple(rows))

  def read(self, numbers: Sequence[int]) -> tuple[np.ndarray, Latents]:
    """Record numbers [n], and latents with leading [n], of the examples at these places.

    Raises:
      UserError: a shard is missing or damaged.
    """
    rows = [self._row(int(number)) for number in numbers]
    index = np.array([row['index'] for row in rows])
    groups = []
    for number, (kept, side) in enumerate(
      zip(self.card['variates'], self.card['sides'], strict=True)
    ):
      parts = {}
      for part in self.card['parts']:
        parts[part] = np.zeros((len(rows), *side, self.card['num_variates']), np.float32)
        if kept:
          parts[part][..., kept] = np.stack([row[f'{number:03d}/{part}'] for row in rows])
      groups.append(Group(*(parts.get(part) for part in PARTS)))
    return index, tuple(groups)

  def _row(self, number: int) -> dict[str, Any]:
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
    found, start = {'index': int(np.frombuffer(record, '<i8', 1)[0])}, 8
    for number, (kept, side) in enumerate(
      zip(self.card['variates'], self.card['sides'], strict=True)
    ):
      for part in self.card['parts'] if kept else ():
        shape = (*side, len(kept))
        values = np.frombuffer(record, '<f4', int(np.prod(shape)), start)
        found[f'{number:03d}/{part}'] = values.reshape(shape)
        start += values.nbytes
    if start != len(record):
      raise ValueError(f'a record has {len(record)} bytes, not {start}')
    return found


def _open_shard(path: Path, form: str) -> Any:
  if form == 'array_record':
    if not path.is_file():
      raise FileNotFoundError('no such file')
    return array_record_module.ArrayRecordReader(str(path))
  with np.load(path) as arrays:
    return {name: arrays[name] for name in arrays.files if name != 'dataset'}


def open_latents(path: str | os.PathLike) -> Stored:
  """Opens a folder that `--mode=encode` wrote.

  Raises:
    UserError: it is none, or of another version.
  """
  path = Path(path)
  try:
    card = json.loads((path / CARD).read_text())
  except (OSError, ValueError) as error:
    raise UserError(
      f'{path} has no readable {CARD} ({error}); give a folder that --mode=encode wrote'
    ) from error
  if card.get('format') != FORMAT:
    raise UserError(
      f'{path} is of format {card.get("format")}, but this version reads format {FORMAT}; run '
      f'--mode=encode again'
    )
  return Stored(path, card)
