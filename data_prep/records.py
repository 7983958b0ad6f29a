"""The one writer of data sets: ArrayRecord shards, index lists of views, and the data card.

A record is the concatenation of its fields' raw bytes (numbers little-endian), in the order of the
card's `fields`. Every shard can be made alone, from `Split.examples(start, stop)`, so a build that
was cut off goes on with the shards that are missing.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import fcntl
import json
import os
import pathlib
from typing import Any, BinaryIO

from array_record.python import array_record_module
import numpy as np

from data_prep import card as data_card
from data_prep import contents as data_contents
from data_prep import sources
from data_prep.contents import Contents, Example, Field, Split
from data_prep.errors import DataPrepError

_COMPRESSION = {'uncompressed': 'uncompressed', 'zstd': 'zstd:3'}


def encode(example: Example, fields: Mapping[str, Field]) -> bytes:
  """One record: the raw bytes of the fields in order, numbers little-endian.

  Raises:
    ValueError: a field is missing, or its dtype or shape is not the declared one.
  """
  parts = []
  for name, field in fields.items():
    array = np.asarray(example[name]) if name in example else None
    if array is None or array.dtype != field.dtype or array.shape != field.shape:
      found = 'nothing' if array is None else f'{array.dtype} {array.shape}'
      raise ValueError(f"field '{name}' must be {field.dtype} {field.shape}, but is {found}")
    parts.append(array.astype(array.dtype.newbyteorder('<')).tobytes())
  return b''.join(parts)


def write_dataset(
  out_dir: str | os.PathLike, name: str, contents: Contents, *, limit: int | None = None
) -> tuple[dict[str, Any], bool]:
  """Writes a data set, or finds it already written.

  All files first gather in a folder `<out_dir>.tmp-...` beside `out_dir`, which gets its name when
  the last one, the card, is on disk. The same contents give the same bytes. A second call does
  nothing; a call after an interruption reuses whole shards.

  Args:
    out_dir: the folder of this data set.
    name: stands in the card and in the names of the shards.
    contents: the records and what to say of them.
    limit: keep only the first records of each split, and of views what points to them.

  Returns:
    The card, and whether it was written now.

  Raises:
    DataPrepError: `out_dir` holds something else, or writing fails.
    ValueError: the contents contradict themselves.
  """
  out_dir = pathlib.Path(out_dir)
  contents = contents if limit is None else data_contents.limited(contents, limit)
  data_contents.check(contents)
  plan = data_card.plan(name, contents, limit)
  partial = out_dir.with_name(f'{out_dir.name}.tmp-{plan["build_id"][:12]}')
  try:
    if found := data_card.find_existing(out_dir, plan):
      return found, False
    partial.mkdir(parents=True, exist_ok=True)
    with _locked(partial):
      if found := data_card.find_existing(out_dir, plan):  # another process was quicker
        return found, False
      card = _fill(partial, plan, contents)
      os.rename(partial, out_dir)
      _sync(out_dir.parent)
  except OSError as error:
    raise DataPrepError(
      f'cannot write {out_dir}: {error}; free some space or choose another place with --out=DIR '
      '(finished shards are kept, and the next build goes on from there)'
    ) from error
  finally:
    with contextlib.suppress(OSError):
      partial.rmdir()  # if nothing is in it
  return card, True


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
  """Holds other builds of the same plan back; the lock goes with this process."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    with contextlib.suppress(OSError):  # a file system without locks: one build at a time, please
      fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
  finally:
    os.close(descriptor)


def _fill(folder: pathlib.Path, plan: Mapping[str, Any], contents: Contents) -> dict[str, Any]:
  """Writes shards, views and card into `folder`, which then holds nothing else."""
  splits = {
    split: {
      'count': spec.count,
      'shards': _write_split(folder, f'{plan["name"]}-{split}', spec, contents),
    }
    for split, spec in contents.splits.items()
  }
  views = {
    name: data_contents.indices_of(contents, view)
    for name, view in contents.views.items()
    if view.indices is not None
  }
  if views:
    _write_whole(folder / data_card.VIEWS_FILE, lambda file: np.savez(file, **views))
  card = {**plan, 'splits': splits, **data_card.measure(folder, splits, plan['fields'])}
  text = json.dumps(card, indent=1) + '\n'
  _write_whole(folder / data_card.CARD_FILE, lambda file: file.write(text.encode()))
  for leftover in folder.glob('*.part'):  # of a build that was killed
    leftover.unlink()
  return card


def _write_split(
  folder: pathlib.Path, stem: str, split: Split, contents: Contents
) -> list[dict[str, Any]]:
  """Writes the shards of one split, except those that a build before finished; describes all."""
  starts = range(0, split.count, contents.records_per_shard)
  shards = []
  for number, start in enumerate(starts):
    path = folder / f'{stem}.array_record-{number:05d}-of-{len(starts):05d}'
    stop = min(start + contents.records_per_shard, split.count)
    if not path.exists():
      encoded = (encode(example, contents.fields) for example in split.examples(start, stop))
      _write_shard(path, encoded, stop - start, contents.compression)
    shards.append(
      {
        'file': path.name,
        'count': stop - start,
        'bytes': path.stat().st_size,
        'sha256': sources.sha256_file(path),
      }
    )
  return shards


def _write_shard(
  path: pathlib.Path, encoded: Iterator[bytes], expected: int, compression: str
) -> None:
  """Writes one file of `expected` records; it gets its name only when it is whole."""
  temporary = path.with_name(path.name + '.part')
  # Grain reads record by record: any other group size makes random access slow.
  options = f'group_size:1,{_COMPRESSION[compression]}'
  try:
    writer = _as_os_error(array_record_module.ArrayRecordWriter, str(temporary), options)
    count = 0
    for record in encoded:
      _as_os_error(writer.write, record)
      count += 1
    _as_os_error(writer.close)
    if count != expected:
      raise DataPrepError(
        f'{path.name} must hold {expected} examples, but the raw files gave {count}; '
        'fetch them anew'
      )
    _publish(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)  # a full disk gets its space back
    raise


def _as_os_error(call: Callable, *arguments: Any) -> Any:
  """ArrayRecord tells of a full disk or a forbidden folder by RuntimeError."""
  try:
    return call(*arguments)
  except RuntimeError as error:
    raise OSError(str(error)) from error


def _write_whole(path: pathlib.Path, write: Callable[[BinaryIO], Any]) -> None:
  temporary = path.with_name(path.name + '.part')
  with open(temporary, 'wb') as file:
    write(file)
  _publish(temporary, path)


def _publish(temporary: pathlib.Path, path: pathlib.Path) -> None:
  """Gives a finished file its name once its bytes are on disk."""
  _sync(temporary)
  os.rename(temporary, path)
  _sync(path.parent)


def _sync(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
