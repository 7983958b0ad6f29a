"""Work directories in a bucket of an object store: gs://BUCKET/....

Objects are written whole, and cannot be appended to. So files that grow are written to a folder of
this machine and copied from time to time. A crash loses the lines after the last copy.
"""

import os
from pathlib import Path
import tempfile

from hvae_tpu.errors import UserError


def is_remote(path: str | os.PathLike) -> bool:
  """Returns whether a path lies in a bucket."""
  return '://' in os.fspath(path)


def as_path(path: str | os.PathLike) -> Path:
  """Returns a path of this machine, or a path in a bucket with the same methods."""
  if not is_remote(path):
    return Path(path)
  from etils import epath  # reaches buckets through TensorFlow, which takes seconds to import

  return epath.Path(path)


def check_client() -> None:
  """Raises UserError if the package for checkpoints in buckets is missing."""
  try:
    from google.cloud import storage  # noqa: F401
  except ImportError as error:
    raise UserError(
      "a --workdir in a bucket needs the package google-cloud-storage; run: pip install '.[gcs]'"
    ) from error


class Mirror:
  """A folder of this machine whose files are copied to a folder in a bucket."""

  def __init__(self, remote: str | os.PathLike):
    self._remote = as_path(remote)
    self._folder = tempfile.TemporaryDirectory(prefix='hvae_tpu-')
    self._copied = {}

  @property
  def local(self) -> Path:
    """The folder of this machine."""
    return Path(self._folder.name)

  def names(self) -> set[str]:
    """Returns the names of the files in the bucket's folder."""
    return {path.name for path in self._remote.iterdir()} if self._remote.exists() else set()

  def publish(self) -> None:
    """Copies the files that have grown, whole; unfinished files, `.name`, are left out."""
    self._remote.mkdir(parents=True, exist_ok=True)
    for path in sorted(self.local.rglob('*')):
      if path.name.startswith('.') or not path.is_file():
        continue
      size, name = path.stat().st_size, path.relative_to(self.local)
      if self._copied.get(name) != size:
        target = self._remote / name.as_posix()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        self._copied[name] = size

  def close(self) -> None:
    """Copies a last time, and deletes the folder of this machine."""
    self.publish()
    self._folder.cleanup()
