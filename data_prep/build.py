"""Builds one data set: `python -m data_prep.build NAME [--out=DIR] [--limit=N]`."""

import argparse
from collections.abc import Sequence
import importlib
import os
import pathlib
import sys
from types import ModuleType

from data_prep import card as data_card
from data_prep import records
from data_prep.builders import BUILDERS
from data_prep.errors import DataPrepError

_DISTRIBUTIONS = {'PIL': 'pillow', 'skimage': 'scikit-image', 'sklearn': 'scikit-learn'}


def build(
  name: str, root: str | os.PathLike | None = None, limit: int | None = None
) -> pathlib.Path:
  """Builds a data set unless it is there already, and prints its check list.

  Args:
    name: a key of `BUILDERS`.
    root: the folder of all data sets, by default `$HVAE_DATA`, else `data`; the set gets the
      folder `<root>/<name>`.
    limit: keep only the first records of each split.

  Returns:
    The folder of the data set.

  Raises:
    DataPrepError: no such data set, a missing package or raw file, or a failed write.
  """
  contents = _builder(name).load()
  folder = pathlib.Path(root or os.environ.get('HVAE_DATA') or 'data') / name
  card, written = records.write_dataset(folder, name, contents, limit=limit)
  for line in (*contents.checks, *data_card.check_list(card)):
    print(line)
  print(f'{name}: ' + (f'written to {folder}' if written else f'{folder} is complete already'))
  return folder


def main(arguments: Sequence[str] | None = None) -> int:
  """The command; returns its exit code: 2 for what the user can put right."""
  parser = argparse.ArgumentParser(prog='python -m data_prep.build', description=__doc__)
  parser.add_argument('name', nargs='?', metavar='NAME', help='the data set; see --list')
  parser.add_argument('--out', metavar='DIR', help='folder of all data sets ($HVAE_DATA, data)')
  parser.add_argument('--limit', metavar='N', type=_number, help='first N records of each split')
  parser.add_argument('--list', action='store_true', help='list the data sets and stop')
  options = parser.parse_args(arguments)
  try:
    if options.list:
      for name in BUILDERS:
        print(f'{name:16} {_builder(name).__doc__.splitlines()[0]}')
    elif options.name is None:
      raise DataPrepError(f'name the data set to build, one of: {", ".join(BUILDERS)}.')
    else:
      build(options.name, options.out, options.limit)
  except DataPrepError as error:
    print(f'data_prep.build: {error}', file=sys.stderr)
    return 2
  return 0


def _builder(name: str) -> ModuleType:
  if name not in BUILDERS:
    raise DataPrepError(f"there is no data set '{name}'; choose one of: {', '.join(BUILDERS)}.")
  try:
    return importlib.import_module(BUILDERS[name])
  except ModuleNotFoundError as error:
    package = _DISTRIBUTIONS.get(error.name, error.name)
    raise DataPrepError(f'building {name} needs {package}; run: pip install {package}') from error


def _number(text: str) -> int:
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not '{text}'")
  return int(text)


if __name__ == '__main__':
  sys.exit(main())
