"""Shards: encoded records in ArrayRecord files, written by one process or by several.

Each shard depends on the contents and its own range alone, and gets its name only when it is whole.
So the bytes do not depend on the number of processes, and an interrupted build continues with the
missing shards.
"""

from collections.abc import Callable, Mapping
import concurrent.futures
import dataclasses
import multiprocessing
import os
import pathlib
import threading
import time
from typing import Any, BinaryIO

from array_record.python import array_record_module
import numpy as np
from tqdm import tqdm

from data_prep.core import progress, sources
from data_prep.core.contents import Contents, Example, Field
from data_prep.errors import DataPrepError

_COMPRESSION = {'uncompressed': 'uncompressed', 'zstd': 'zstd:3'}
_contents: Contents  # set in worker processes


@dataclasses.dataclass(frozen=True)
class _Shard:
  """A shard file, and its range of a split."""

  path: pathlib.Path
  split: str
  start: int
  stop: int


def encode(example: Example, fields: Mapping[str, Field]) -> bytes:
  """Encodes one record: the raw bytes of the fields in order, numbers little-endian.

  Raises:
    ValueError: a field is missing, or its dtype or shape is not the declared one.
  """
  parts = []
  for name, field in fields.items():
    array = np.asarray(example[name]) if name in example else None
    if array is None or array.dtype != field.dtype or array.shape != field.shape:
      actual = 'nothing' if array is None else f'{array.dtype} {array.shape}'
      raise ValueError(f"field '{name}' must be {field.dtype} {field.shape}, but is {actual}")
    parts.append(array.astype(array.dtype.newbyteorder('<')).tobytes())
  return b''.join(parts)


def write_shards(
  folder: pathlib.Path, stem: str, contents: Contents, jobs: int
) -> dict[str, list[dict[str, Any]]]:
  """Writes the shards of all splits, except finished shards of an earlier build.

  Args:
    folder: folder to write to.
    stem: first part of the file names.
    contents: the records to write.
    jobs: number of writing processes.

  Returns:
    Split -> the card's entry of each shard: file, count, bytes, sha256.

  Raises:
    DataPrepError: the raw files gave too few examples, or a writing process ended.
    OSError: the disk is full or forbidden.
  """
  planned = _plan(folder, stem, contents)
  missing = [shard for shard in planned if not shard.path.exists()]
  bar = tqdm(total=len(missing), desc=stem, unit='shard', **progress.QUIET)
  with bar:
    if jobs == 1 or len(missing) < 2:
      for shard in missing:
        _write_shard(shard, contents)
        bar.update()
    else:
      _write_side_by_side(missing, contents, jobs, bar)
  described = {split: [] for split in contents.splits}
  for shard in planned:
    described[shard.split].append(
      {
        'file': shard.path.name,
        'count': shard.stop - shard.start,
        'bytes': shard.path.stat().st_size,
        'sha256': sources.sha256_file(shard.path),
      }
    )
  return described


def _plan(folder: pathlib.Path, stem: str, contents: Contents) -> list[_Shard]:
  """Lists the shards of all splits."""
  planned = []
  for split, spec in contents.splits.items():
    starts = range(0, spec.count, contents.records_per_shard)
    for number, start in enumerate(starts):
      path = folder / f'{stem}-{split}.array_record-{number:05d}-of-{len(starts):05d}'
      stop = min(start + contents.records_per_shard, spec.count)
      planned.append(_Shard(path, split, start, stop))
  return planned


def _write_side_by_side(shards: list[_Shard], contents: Contents, jobs: int, bar: tqdm) -> None:
  """Writes shards in several processes."""
  # Spawned, not forked: the libraries in use hold threads and locks.
  context = multiprocessing.get_context('spawn')
  pool = concurrent.futures.ProcessPoolExecutor(
    min(jobs, len(shards)), context, _start_worker, (contents, os.getpid())
  )
  with pool:
    try:
      for done in concurrent.futures.as_completed(
        [pool.submit(_write_in_worker, s) for s in shards]
      ):
        done.result()
        bar.update()
    except concurrent.futures.process.BrokenProcessPool as error:
      raise DataPrepError(
        'a writing process was ended from outside, perhaps for lack of memory; run the command '
        'again with a smaller --jobs (finished shards are kept)'
      ) from error
    except BaseException:
      pool.shutdown(cancel_futures=True)
      raise


def _start_worker(contents: Contents, parent: int) -> None:
  global _contents
  _contents = contents
  threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
  """Ends this process soon after its parent, which may be killed without notice."""
  while os.getppid() == parent:
    time.sleep(0.2)
  os._exit(1)


def _write_in_worker(shard: _Shard) -> None:
  _write_shard(shard, _contents)


def _write_shard(shard: _Shard, contents: Contents) -> None:
  """Writes one shard; the file gets its name only when it is whole."""
  temporary = shard.path.with_name(f'{shard.path.name}.part-{os.getpid()}')
  # Grain reads record by record: any other group size makes random access slow.
  options = f'group_size:1,{_COMPRESSION[contents.compression]}'
  expected, count = shard.stop - shard.start, 0
  try:
    writer = _as_os_error(array_record_module.ArrayRecordWriter, str(temporary), options)
    for example in contents.splits[shard.split].examples(shard.start, shard.stop):
      _as_os_error(writer.write, encode(example, contents.fields))
      count += 1
    _as_os_error(writer.close)
    if count != expected:
      raise DataPrepError(
        f'{shard.path.name} must hold {expected} examples, but the raw files gave {count}; '
        'download them again'
      )
    _publish(temporary, shard.path)
  except BaseException:
    temporary.unlink(missing_ok=True)  # frees the space of a full disk
    raise


def _as_os_error(call: Callable, *arguments: Any) -> Any:
  """Calls ArrayRecord, which reports a full disk or a forbidden folder as RuntimeError."""
  try:
    return call(*arguments)
  except RuntimeError as error:
    raise OSError(str(error)) from error


def write_whole(path: pathlib.Path, write: Callable[[BinaryIO], Any]) -> None:
  """Writes a file; it gets its name only when it is whole."""
  temporary = path.with_name(path.name + '.part')
  with open(temporary, 'wb') as file:
    write(file)
  _publish(temporary, path)


def _publish(temporary: pathlib.Path, path: pathlib.Path) -> None:
  """Gives a finished file its name once its bytes are on disk."""
  sync(temporary)
  os.rename(temporary, path)
  sync(path.parent)


def sync(path: pathlib.Path) -> None:
  """Flushes the bytes of a file, or the names in a folder, to disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
