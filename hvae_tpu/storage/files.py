"""Files that are there whole or not at all, and strict JSON."""

from collections.abc import Iterator, Mapping
import contextlib
import json
import math
import os
import pathlib
import tempfile
from typing import Any

from hvae_tpu.errors import UserError
from hvae_tpu.storage import buckets


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A file to write instead of `path`, which takes its place when the block ends well.

  Folders are made as needed.

  Raises:
    UserError: the place cannot be written.
  """
  folder = pathlib.Path(tempfile.gettempdir()) if buckets.is_remote(path) else path.parent
  partial = folder / f'.{path.name}.{os.getpid()}'
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    yield partial
    if buckets.is_remote(path):
      path.write_bytes(partial.read_bytes())
    else:
      os.replace(partial, path)
  except OSError as error:
    raise UserError(f'{path} cannot be written ({error}); give another --workdir') from error
  finally:
    with contextlib.suppress(OSError):
      partial.unlink(missing_ok=True)


def save_json(path: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Writes dicts, lists, strings and numbers as strict JSON, whole or not at all; makes folders.

  NaN and infinities become strings: 'nan', 'inf' and '-inf'.
  """
  with replacing(path) as partial:
    partial.write_text(json.dumps(_strict(record), indent=2, allow_nan=False) + '\n')


def _strict(value: Any) -> Any:
  """JSON has no NaN and no infinities: they become the strings 'nan', 'inf' and '-inf'."""
  if isinstance(value, dict):
    return {name: _strict(inner) for name, inner in value.items()}
  if isinstance(value, list | tuple):
    return [_strict(inner) for inner in value]
  return str(value) if isinstance(value, float) and not math.isfinite(value) else value
