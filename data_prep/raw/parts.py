"""Which of the given raw files is which part of a data set, and whether the parts are complete."""

from collections.abc import Mapping
import pathlib
import re

from data_prep.errors import DataPrepError
from data_prep.raw import archives, recognise


def by_role(
  paths: tuple[pathlib.Path, ...], roles: Mapping[str, str]
) -> dict[str, tuple[pathlib.Path, ...]]:
  """Deals the paths out to roles.

  Args:
    paths: files and folders; a single folder that plays no role itself is taken for its contents.
    roles: name -> regular expression, searched in the name of the path and, if it is in none of
      them, in the name of the first file of an archive. The first role that fits counts.

  Raises:
    DataPrepError: a role has no path.
  """
  found = _deal(paths, roles)
  if len(paths) == 1 and paths[0].is_dir() and _missing(found):
    found = _deal(tuple(sorted(paths[0].iterdir())), roles)
  if missing := _missing(found):
    raise DataPrepError(
      f'nothing for {" and ".join(missing)} (a name with {roles[missing[0]]!r}) is among: '
      f'{", ".join(map(str, paths))}; give every raw file or folder with --raw=PATH'
    )
  return {role: tuple(found[role]) for role in roles}


def one(paths: tuple[pathlib.Path, ...], role: str) -> pathlib.Path:
  """The only path of a role; DataPrepError if there are several, or none."""
  if not paths:
    raise DataPrepError(f'none of the raw files is for {role}; give one with --raw=PATH')
  if len(paths) > 1:
    raise DataPrepError(
      f'several raw files are for {role}: {", ".join(map(str, paths))}; give only one of them'
    )
  return paths[0]


def check_count(what: str, found: int, wanted: int, certain: bool = True) -> str:
  """A line for the check list.

  Args:
    what: is counted, in words.
    certain: the wanted number stands in published code; else a difference only warns.

  Raises:
    DataPrepError: the numbers differ, and the wanted one is certain.
  """
  if found == wanted:
    return f'[ok] {what}: {found:,}'
  if certain:
    raise DataPrepError(
      f'{what} must be {wanted:,}, but {found:,} were found: the raw files are incomplete or of '
      'another data set; fetch them anew'
    )
  return f'[warn] {what}: {found:,}, usually quoted as {wanted:,}'


def _deal(
  paths: tuple[pathlib.Path, ...], roles: Mapping[str, str]
) -> dict[str, list[pathlib.Path]]:
  found = {role: [] for role in roles}
  for path in paths:
    role = _role_of(path.name, roles) or _role_of(_first_member(path), roles)
    if role:
      found[role].append(path)
  return found


def _missing(found: Mapping[str, list[pathlib.Path]]) -> list[str]:
  return [role for role, paths in found.items() if not paths]


def _role_of(name: str, roles: Mapping[str, str]) -> str | None:
  return next((role for role, rule in roles.items() if re.search(rule, name, re.I)), None)


def _first_member(path: pathlib.Path) -> str:
  if recognise.container_of(path) not in ('zip', 'tar', 'tar.gz'):
    return ''
  names = archives.open_archive(path).names
  return names[0] if names else ''
