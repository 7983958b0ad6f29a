"""The one writer of data sets: ArrayRecord shards, index lists of views, and the data card.

A record is the concatenation of its fields' raw bytes (numbers little-endian), in the order of the
card's `fields`. Every shard can be made alone, from `Split.examples(start, stop)`, so a build that
was cut off goes on with the shards that are missing.
"""

from collections.abc import Iterator, Mapping
import contextlib
import fcntl
import json
import os
import pathlib
from typing import Any

import numpy as np

from data_prep.core import card as card_lib
from data_prep.core import shards
from data_prep.core.contents import Contents, check, indices_of, limited
from data_prep.core.shards import sync, write_whole
from data_prep.errors import DataPrepError


def write_dataset(
  out_dir: str | os.PathLike,
  name: str,
  contents: Contents,
  *,
  limit: int | None = None,
  jobs: int = 1,
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
    jobs: processes that write shards side by side; the bytes do not depend on it.

  Returns:
    The card, and whether it was written now.

  Raises:
    DataPrepError: `out_dir` holds something else, or writing fails.
    ValueError: the contents contradict themselves.
  """
  out_dir = pathlib.Path(out_dir)
  contents = contents if limit is None else limited(contents, limit)
  check(contents)
  plan = card_lib.plan(name, contents, limit)
  partial = out_dir.with_name(f'{out_dir.name}.tmp-{plan["build_id"][:12]}')
  try:
    if found := card_lib.find_existing(out_dir, plan):
      return found, False
    partial.mkdir(parents=True, exist_ok=True)
    with _locked(partial):
      if found := card_lib.find_existing(out_dir, plan):  # another process was quicker
        return found, False
      card = _fill(partial, plan, contents, jobs)
      os.rename(partial, out_dir)
      sync(out_dir.parent)
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


def _fill(
  folder: pathlib.Path, plan: Mapping[str, Any], contents: Contents, jobs: int
) -> dict[str, Any]:
  """Writes shards, views and card into `folder`, which then holds nothing else."""
  written = shards.write_shards(folder, plan['name'], contents, jobs)
  splits = {
    split: {'count': spec.count, 'shards': written[split]}
    for split, spec in contents.splits.items()
  }
  views = {
    name: indices_of(contents, view)
    for name, view in contents.views.items()
    if view.indices is not None
  }
  if views:
    write_whole(folder / card_lib.VIEWS_FILE, lambda file: np.savez(file, **views))
  card = {**plan, 'splits': splits, **card_lib.measure(folder, splits, plan['fields'])}
  text = json.dumps(card, indent=1) + '\n'
  write_whole(folder / card_lib.CARD_FILE, lambda file: file.write(text.encode()))
  for leftover in folder.glob('*.part*'):  # of a build that was killed
    leftover.unlink()
  return card
