"""The data card `dataset.json`, which describes a folder of records, and its printed check list.

The card has two halves. The plan is known before a record is written; its hash, `build_id`,
identifies the build of an existing folder. The measurements are taken from the finished files.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from array_record.python import array_record_module
import numpy as np

from data_prep.core.contents import PIXEL_FIELDS, Contents, View, indices_of
from data_prep.errors import DataPrepError

FORMAT = 1  # of the card and the records; a reader refuses others
CARD_FILE = 'dataset.json'
VIEWS_FILE = 'views.npz'
_READ_AT_ONCE = 2**24  # bytes


def plan(name: str, contents: Contents, limit: int | None) -> dict[str, Any]:
  """Returns the part of the card that is known before a record is written."""
  info = dataclasses.asdict(contents.info)
  facts = {
    'name': name,
    'format': FORMAT,
    'version': info.pop('version'),
    'limit': limit,
    'files': dict(info.pop('files')),
    'compression': contents.compression,
    'records_per_shard': contents.records_per_shard,
    'fields': {
      field: {'dtype': np.dtype(spec.dtype).name, 'shape': list(spec.shape)}
      for field, spec in contents.fields.items()
    },
    'splits': {split: {'count': spec.count} for split, spec in contents.splits.items()},
    'views': {view: _describe_view(contents, spec) for view, spec in contents.views.items()},
  }
  if variant := info.pop('variant'):
    facts['variant'] = variant
  # Package versions and texts are left out of the identity: they do not change the records.
  return {'build_id': _hash_facts(facts), **facts, **info}


def _describe_view(contents: Contents, view: View) -> dict[str, Any]:
  """Returns the entry of a view in the card."""
  indices = indices_of(contents, view)
  return {
    'split': view.split,
    'count': len(indices),
    'rule': view.rule,
    'seed': view.seed,
    'sha256': _hash_indices(indices),
    'indices': 'all' if view.indices is None else VIEWS_FILE,
  }


def find_existing(out_dir: pathlib.Path, plan: Mapping[str, Any]) -> dict[str, Any] | None:
  """Returns the card of a finished build of the same plan; None if the folder is absent or empty.

  Raises:
    DataPrepError: the folder holds something else, or a shard is missing.
  """
  if not out_dir.exists() or out_dir.is_dir() and not any(out_dir.iterdir()):
    return None
  path = out_dir / CARD_FILE
  try:
    card = json.loads(path.read_text())
    identity = card['build_id']
    shards = [shard for split in card['splits'].values() for shard in split['shards']]
    sizes = {shard['file']: shard['bytes'] for shard in shards}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise DataPrepError(
      f'{out_dir} exists but has no readable {CARD_FILE}; move it away or choose another '
      'place with --out=DIR'
    ) from error
  if identity != plan['build_id']:
    raise DataPrepError(
      f'{out_dir} holds {_scope(card)}, but {_scope(plan)} was requested; delete that folder or '
      'choose another place with --out=DIR'
    )
  for file, size in sizes.items():
    if not (out_dir / file).is_file() or (out_dir / file).stat().st_size != size:
      raise DataPrepError(
        f'{out_dir / file} is missing or does not have its {size} bytes; delete the folder '
        f'{out_dir} and build again'
      )
  return card


def measure(folder: pathlib.Path, splits: Mapping[str, Any], fields: Mapping[str, Any]) -> dict:
  """Reads all records back and describes their pixels.

  Args:
    folder: folder of the shards.
    splits, fields: as in the card; the pixels are the field `image` or `video`.

  Returns:
    `pixel_sha256`: hash over the pixels of all records in order.
    `mean`, `std`: per channel, on the [0, 1] scale.
    `duplicates`: `within` each split, the number of records that repeat an earlier one; `across`,
      the number of distinct pictures that occur in more than one split.

  Raises:
    DataPrepError: a shard cannot be read, or holds records of another size.
  """
  start, stop, channels = _find_pixels(fields)
  size = sum(_field_size(field) for field in fields.values())
  whole = hashlib.sha256()
  histogram = np.zeros((channels, 256), np.int64)
  keys = {}
  for split, spec in splits.items():
    hashes = []
    for records in (
      group for shard in spec['shards'] for group in _read_groups(folder, shard, size)
    ):
      if any(len(record) != size for record in records):
        raise DataPrepError(
          f"{folder}: a record of split '{split}' does not have the {size} bytes that the card's "
          'fields make up; delete the folder and build again'
        )
      pixels = [record[start:stop] for record in records]
      hashes += [hashlib.blake2b(part, digest_size=8).digest() for part in pixels]
      joined = b''.join(pixels)
      whole.update(joined)
      values = np.frombuffer(joined, np.uint8).reshape(-1, channels)
      for channel, counts in enumerate(histogram):
        counts += np.bincount(values[:, channel], minlength=256)
    keys[split] = np.frombuffer(b''.join(hashes), '<u8')
  return {'pixel_sha256': whole.hexdigest(), **_moments(histogram), 'duplicates': _repeats(keys)}


def check_list(card: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns the lines that are printed about a finished data set."""
  splits = ', '.join(f'{name} {split["count"]}' for name, split in card['splits'].items())
  views = ', '.join(f'{name} {view["count"]}' for name, view in card['views'].items())
  fields = '; '.join(
    f'{name} {field["dtype"]} {field["shape"]}' for name, field in card['fields'].items()
  )
  within, across = card['duplicates']['within'], card['duplicates']['across']
  repeats = ', '.join(f'{name} {count}' for name, count in within.items())
  publishable = card['samples_publishable']
  limit = f'; only the first {card["limit"]} of each split' if card['limit'] else ''
  return (
    f'[ok] counts: {splits} (views: {views}){limit}',
    f'[ok] all records: {fields}',
    f'[warn] {across} pictures occur in more than one split'
    if across
    else f'[ok] no picture occurs in two splits (repeats within: {repeats})',
    f'[note] mean {card["mean"]}, std {card["std"]} per channel on the [0, 1] scale',
    f'[note] sha256 of all pixels: {card["pixel_sha256"]}',
    f'[note] licence: {card["licence"]}' + ('' if publishable else '; do not redistribute'),
  )


def _scope(plan: Mapping[str, Any]) -> str:
  """Describes version and limit of a build."""
  records = f'the first {plan["limit"]} records of each split' if plan['limit'] else 'all records'
  return f'version {plan["version"]} with {records} (build {plan["build_id"][:12]})'


def _find_pixels(fields: Mapping[str, Any]) -> tuple[int, int, int]:
  """Returns (first byte, end, channels) of the pixels in a record."""
  start = 0
  for name, field in fields.items():
    size = _field_size(field)
    if name in PIXEL_FIELDS:
      return start, start + size, field['shape'][-1]
    start += size
  raise ValueError(f'none of the fields {list(fields)} is one of {PIXEL_FIELDS}')


def _field_size(field: Mapping[str, Any]) -> int:
  """Returns the bytes of one field of a record."""
  return int(np.prod(field['shape'], dtype=np.int64)) * np.dtype(field['dtype']).itemsize


def _read_groups(
  folder: pathlib.Path, shard: Mapping[str, Any], size: int
) -> Iterator[list[bytes]]:
  """Yields all records of a shard, of `size` bytes each, in groups of some megabytes."""
  group = max(1, _READ_AT_ONCE // size)
  try:
    reader = array_record_module.ArrayRecordReader(str(folder / shard['file']))
    for start in range(0, shard['count'], group):
      yield reader.read(start, min(start + group, shard['count']))
    reader.close()
  except RuntimeError as error:
    raise DataPrepError(
      f'{folder / shard["file"]} is damaged ({error}); delete the folder {folder} and build again'
    ) from error


def _moments(histogram: np.ndarray) -> dict[str, list[float]]:
  """Computes mean and standard deviation per channel from counts [C, 256], in exact integers."""
  levels = np.arange(256)
  total, first = histogram.sum(1), histogram @ levels
  second = histogram @ levels**2
  mean = first / total
  std = np.sqrt(second / total - mean**2)
  return {'mean': (mean / 255).round(6).tolist(), 'std': (std / 255).round(6).tolist()}


def _repeats(keys: Mapping[str, np.ndarray]) -> dict:
  """Counts repeated pictures by their hashes: split -> uint64 [N]."""
  distinct = {split: np.unique(hashes) for split, hashes in keys.items()}
  counts = np.unique(np.concatenate(list(distinct.values())), return_counts=True)[1]
  return {
    'within': {split: len(hashes) - len(distinct[split]) for split, hashes in keys.items()},
    'across': int((counts > 1).sum()),
  }


def _hash_facts(facts: Mapping[str, Any]) -> str:
  """Returns the hex SHA-256 of the JSON values that decide the bytes of a data set."""
  return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _hash_indices(indices: np.ndarray) -> str:
  """Returns the hex SHA-256 of an index list as little-endian int64."""
  return hashlib.sha256(np.ascontiguousarray(indices, '<i8').tobytes()).hexdigest()
