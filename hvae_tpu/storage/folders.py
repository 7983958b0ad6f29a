"""Folders of results, written whole or not at all, with the results of one command only."""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import shutil

from hvae_tpu.errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
  """Yields a new folder to fill, which takes the place of `path` when the block ends well.

  The old contents of `path` are deleted then. Folders in buckets cannot be renamed, and so not
  replaced.

  Raises:
    UserError: the place, or a file in the new folder, cannot be written.
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
  """Puts a folder in the place of another one, which is restored if that fails."""
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
