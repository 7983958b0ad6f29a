"""The store of small files: JSON, CSV and NPZ, written whole or not at all, also in buckets."""

from collections.abc import Collection, Iterator, Mapping, Sequence
import contextlib
import csv
import json
import math
import os
from pathlib import Path
import tempfile
from typing import Any
import zipfile

import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.storage import buckets


@contextlib.contextmanager
def replacing(path: Path, remedy: str = 'give another --workdir') -> Iterator[Path]:
  """Yields a file to write instead of `path`, which takes its place when the block ends well.

  Folders are made as needed.

  Raises:
    UserError: the place cannot be written; the message ends with `remedy`.
  """
  folder = Path(tempfile.gettempdir()) if buckets.is_remote(path) else path.parent
  partial = folder / f'.{path.name}.{os.getpid()}'
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    yield partial
    if buckets.is_remote(path):
      path.write_bytes(partial.read_bytes())
    else:
      os.replace(partial, path)
  except OSError as error:
    raise UserError(f'{path} cannot be written ({error}); {remedy}') from error
  finally:
    with contextlib.suppress(OSError):
      partial.unlink(missing_ok=True)


def save_json(
  path: Path,
  record: Mapping[str, Any],
  *,
  indent: int | None = 2,
  end: str = '\n',
  strict: bool = True,
) -> None:
  """Writes dicts, lists, strings and numbers as JSON.

  Args:
    path: path of the file; its folders are made.
    record: the values.
    indent: spaces per level; None writes one line.
    end: text after the last bracket.
    strict: whether NaN and infinities become the strings 'nan', 'inf' and '-inf'. Otherwise they
      become the literals NaN and Infinity, which `read_json` reads back as numbers.
  """
  text = json.dumps(strings_for_nonfinite(record) if strict else record, indent=indent)
  with replacing(path) as partial:
    partial.write_text(text + end)


def strings_for_nonfinite(value: Any) -> Any:
  """Returns the value with NaN and infinities as strings, since strict JSON has no such numbers."""
  if isinstance(value, Mapping):
    return {name: strings_for_nonfinite(inner) for name, inner in value.items()}
  if isinstance(value, list | tuple):
    return [strings_for_nonfinite(inner) for inner in value]
  return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_json(
  path: Path, remedy: str, *, missing: str = '', keys: Collection[str] = ()
) -> dict[str, Any]:
  """Reads a JSON object.

  Args:
    path: path of the file.
    remedy: end of every error message, such as 'run --mode=encode again'.
    missing: start of the error message of a missing file; '' says that the file is missing.
    keys: entries that the object must have.

  Raises:
    UserError: the file is missing, is no JSON object, or lacks a key.
  """
  try:
    record = json.loads(path.read_text())
  except FileNotFoundError as error:
    raise UserError(f'{missing or f"{path} is missing"}; {remedy}') from error
  except (OSError, ValueError) as error:
    raise UserError(f'{path} cannot be read ({error}); {remedy}') from error
  if not isinstance(record, dict):
    raise UserError(f'{path} cannot be read (it is no JSON object); {remedy}')
  if lacking := sorted(set(keys) - set(record)):
    raise UserError(f'{path} is damaged: {", ".join(lacking)} missing; {remedy}')
  return record


def save_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """Writes rows as a table whose columns are the keys of the first row."""
  with replacing(path) as partial, open(partial, 'w', newline='') as file:
    table = csv.DictWriter(file, rows[0])
    table.writeheader()
    table.writerows(rows)


def save_arrays(path: Path, arrays: Mapping[str, Any], *, compressed: bool = False) -> None:
  """Writes arrays by name as an NPZ file."""
  with replacing(path) as partial, open(partial, 'wb') as file:
    (np.savez_compressed if compressed else np.savez)(file, **arrays)


def read_arrays(
  path: Path, names: Collection[str], remedy: str, *, missing: str = ''
) -> dict[str, np.ndarray]:
  """Reads the named arrays of an NPZ file; for the other arguments see `read_json`.

  Raises:
    UserError: the file is missing or damaged, or lacks an array.
  """
  try:
    with np.load(path) as arrays:
      return {name: arrays[name] for name in names}
  except FileNotFoundError as error:
    raise UserError(f'{missing or f"{path} is missing"}; {remedy}') from error
  except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
    raise UserError(f'{path} cannot be read ({error}); {remedy}') from error
