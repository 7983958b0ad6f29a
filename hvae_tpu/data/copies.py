"""Copies of data sets in a bucket, on a disk of this machine: records are read in random order."""

import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

from hvae_tpu.errors import UserError
from hvae_tpu.storage import buckets, files

CACHE = '~/.cache/hvae_tpu/data'
_CARD = 'dataset.json'
_PIECE = 2**24  # bytes
_REMEDY = 'name another disk with HVAE_DATA_CACHE, or mount the bucket'


def local_copy(root: str, name: str) -> pathlib.Path:
  """Copies a data set in a bucket to this machine, and returns the folder of the copy.

  Files that were copied before are kept. A data set that was built anew gets its own folder. The
  copies lie in `$HVAE_DATA_CACHE`, else in `~/.cache/hvae_tpu/data`.

  Args:
    root: folder of all data sets, in a bucket.
    name: name of the data set.

  Raises:
    UserError: there is no such data set, or the disk is too small.
  """
  remote = buckets.as_path(root) / name
  try:
    text = (remote / _CARD).read_text()
    card = json.loads(text)
  except FileNotFoundError as error:
    raise UserError(
      f'data set {name!r} is not in {root} (no {remote / _CARD}); build it elsewhere and copy its '
      f'folder there'
    ) from error
  except ValueError as error:
    raise UserError(f'{remote / _CARD} cannot be read as a data card: {error}') from error
  cache = pathlib.Path(os.environ.get('HVAE_DATA_CACHE') or CACHE).expanduser()
  build = hashlib.sha256(f'{root} {text}'.encode()).hexdigest()[:12]
  local = cache / f'{name}-{build}'
  if not (local / _CARD).exists():
    local.mkdir(parents=True, exist_ok=True)
    _copy(remote, local, card)
    with files.replacing(local / _CARD, _REMEDY) as partial:
      partial.write_text(text)
  return local


def _copy(remote: Any, local: pathlib.Path, card: dict[str, Any]) -> None:
  """Copies the missing shards, and all index lists."""
  sizes = {s['file']: s['bytes'] for split in card['splits'].values() for s in split['shards']}
  lists = {view['indices'] for view in card['views'].values()} - {'all'}
  has = lambda file: (local / file).exists() and (local / file).stat().st_size == sizes[file]
  missing = [file for file in sizes if not has(file)]
  need, free = sum(sizes[file] for file in missing), shutil.disk_usage(local).free
  if need > free:
    raise UserError(
      f'{remote} needs {need / 2**30:.1f} GB below {local.parent}, but {free / 2**30:.1f} GB are '
      'free; name a larger disk with HVAE_DATA_CACHE, or mount the bucket'
    )
  print(f'copying {remote} ({need / 2**30:.2f} GB) to {local}', flush=True)
  for file in (*missing, *lists):
    with files.replacing(local / file, _REMEDY) as partial:
      with (remote / file).open('rb') as source, partial.open('wb') as target:
        shutil.copyfileobj(source, target, _PIECE)
