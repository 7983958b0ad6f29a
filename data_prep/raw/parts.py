"""Assignment of the given raw files to the parts of a data set, and checks of completeness."""

from collections.abc import Mapping
import pathlib
import re

from data_prep.errors import DataPrepError
from data_prep.raw import archives, recognise


def by_role(
  paths: tuple[pathlib.Path, ...], roles: Mapping[str, str]
) -> dict[str, tuple[pathlib.Path, ...]]:
  """Assigns paths to roles.

  Args:
    paths: files and folders; a single folder without a role stands for the files in it.
    roles: name -> regular expression. It is searched in the name of the path, then in the name of
      the first file of an archive. The first role that matches counts.

  Raises:
    DataPrepError: a role has no path.
  """
  assigned = _assign(paths, roles)
  if len(paths) == 1 and paths[0].is_dir() and _missing(assigned):
    assigned = _assign(tuple(sorted(paths[0].iterdir())), roles)
  if missing := _missing(assigned):
    raise DataPrepError(
      f'nothing for {" and ".join(missing)} (a name with {roles[missing[0]]!r}) is among: '
      f'{", ".join(map(str, paths))}; give every raw file or folder with --raw=PATH'
    )
  return {role: tuple(assigned[role]) for role in roles}


def one(paths: tuple[pathlib.Path, ...], role: str) -> pathlib.Path:
  """Returns the only path of a role; raises DataPrepError if there are several, or none."""
  if not paths:
    raise DataPrepError(f'none of the raw files is for {role}; give one with --raw=PATH')
  if len(paths) > 1:
    raise DataPrepError(
      f'several raw files are for {role}: {", ".join(map(str, paths))}; give only one of them'
    )
  return paths[0]


def check_count(subject: str, count: int, expected: int, certain: bool = True) -> str:
  """Compares a count with the expected one; returns a line of the check list.

  Args:
    subject: name of the counted things.
    count: number in the raw files.
    expected: number that the data set should have.
    certain: whether published code states the number; else a difference is only a warning.

  Raises:
    DataPrepError: the numbers differ, and the expected one is certain.
  """
  if count == expected:
    return f'[ok] {subject}: {count:,}'
  if certain:
    raise DataPrepError(
      f'{subject} must be {expected:,}, but {count:,} were found: the raw files are incomplete or '
      'of another data set; download them again'
    )
  return f'[warn] {subject}: {count:,}, usually quoted as {expected:,}'


def _assign(
  paths: tuple[pathlib.Path, ...], roles: Mapping[str, str]
) -> dict[str, list[pathlib.Path]]:
  assigned = {role: [] for role in roles}
  for path in paths:
    role = _role_of(path.name, roles) or _role_of(_first_member(path), roles)
    if role:
      assigned[role].append(path)
  return assigned


def _missing(assigned: Mapping[str, list[pathlib.Path]]) -> list[str]:
  return [role for role, paths in assigned.items() if not paths]


def _role_of(name: str, roles: Mapping[str, str]) -> str | None:
  return next((role for role, rule in roles.items() if re.search(rule, name, re.I)), None)


def _first_member(path: pathlib.Path) -> str:
  if recognise.container_of(path) not in ('zip', 'tar', 'tar.gz'):
    return ''
  names = archives.open_archive(path).names
  return names[0] if names else ''
