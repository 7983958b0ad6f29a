"""Folders of results that are there whole or not at all, and hold those of one command only."""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import shutil

from hvae_tpu.errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
  """A new folder to fill instead of `path`, which takes its place when the block ends well.

  What was in `path` is deleted then. Not for buckets, whose folders cannot be renamed.

  Raises:
    UserError: the place, or something in the new folder, cannot be written.
  """
  partial = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    _move(partial, path)
  except OSError as error:
    raise UserError(f'{path} cannot be written ({error}); give another --workdir') from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _move(partial: Path, path: Path) -> None:
  old = path.with_name(f'.{path.name}.old-{os.getpid()}')
  if path.exists():
    path.rename(old)
  try:
    partial.rename(path)
  except OSError:
    if old.exists():
      old.rename(path)
    raise
  shutil.rmtree(old, ignore_errors=True)
