"""Writer of data sets: ArrayRecord shards, index lists of views, and the data card.

A record is the concatenation of its fields' raw bytes (numbers little-endian), in the order of the
card's `fields`. Every shard is made independently, from `Split.examples(start, stop)`, so an
interrupted build continues with the missing shards.
"""

from collections.abc import Iterator, Mapping
import contextlib
import fcntl
import json
import os
import pathlib
from typing import Any

import numpy as np

from data_prep.core import card, shards
from data_prep.core.contents import Contents, indices_of, limited, validate
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
  """Writes a data set unless it is complete already.

  Files are written to a folder `<out_dir>.tmp-...` beside `out_dir`. It is renamed to `out_dir`
  when the last file, the card, is on disk. The same contents give the same bytes. A second call
  does nothing; a call after an interruption reuses whole shards.

  Args:
    out_dir: the folder of this data set.
    name: name in the card and in the file names of the shards.
    contents: the records and the facts for the card.
    limit: keep only the first records of each split, and the examples of views among them.
    jobs: number of writing processes; the bytes do not depend on it.

  Returns:
    The card, and whether this call wrote it.

  Raises:
    DataPrepError: `out_dir` holds something else, or writing fails.
    ValueError: the contents contradict themselves.
  """
  out_dir = pathlib.Path(out_dir)
  contents = contents if limit is None else limited(contents, limit)
  validate(contents)
  plan = card.plan(name, contents, limit)
  partial = out_dir.with_name(f'{out_dir.name}.tmp-{plan["build_id"][:12]}')
  try:
    if existing := card.find_existing(out_dir, plan):
      return existing, False
    partial.mkdir(parents=True, exist_ok=True)
    with _locked(partial):
      if existing := card.find_existing(out_dir, plan):  # another process was quicker
        return existing, False
      new_card = _fill(partial, plan, contents, jobs)
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
  return new_card, True


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
  """Locks out other builds of the same plan; the lock ends with this process."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    with contextlib.suppress(OSError):  # some file systems have no locks
      fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
  finally:
    os.close(descriptor)


def _fill(
  folder: pathlib.Path, plan: Mapping[str, Any], contents: Contents, jobs: int
) -> dict[str, Any]:
  """Writes shards, views and card into `folder`, removes other files, and returns the card."""
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
    write_whole(folder / card.VIEWS_FILE, lambda file: np.savez(file, **views))
  new_card = {**plan, 'splits': splits, **card.measure(folder, splits, plan['fields'])}
  text = json.dumps(new_card, indent=1) + '\n'
  write_whole(folder / card.CARD_FILE, lambda file: file.write(text.encode()))
  for leftover in folder.glob('*.part*'):  # left by a killed build
    leftover.unlink()
  return new_card
