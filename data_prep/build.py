"""Builds one data set: `python -m data_prep.build NAME [--raw=PATH ...] [--out=DIR] ...`."""

import argparse
from collections.abc import Sequence
import importlib
import os
import pathlib
import sys
import textwrap
from types import ModuleType

from data_prep.core import records
from data_prep.core.card import check_list
from data_prep.core.request import SOURCES, About, Request
from data_prep.datasets import ALIASES, BUILDERS
from data_prep.errors import DataPrepError

_MOST_JOBS = 8  # default limit: each process may hold an index of a million files
_EXTRA = "pip install -e '.[data]'"


def build(
  name: str,
  root: str | os.PathLike | None = None,
  limit: int | None = None,
  *,
  source: str = 'auto',
  raw: Sequence[str | os.PathLike] = (),
  variant: str | None = None,
  called: str | None = None,
  jobs: int = 1,
  unverified: bool = False,
) -> pathlib.Path:
  """Builds a data set unless it exists, and prints its check list.

  Args:
    name: a key of `BUILDERS` or `ALIASES`.
    root: the folder of all data sets, by default `$HVAE_DATA`, else `data`; the set gets the
      folder `<root>/<called>`.
    limit: keep only the first records of each split.
    source: source of the raw files: `auto`, `local`, `tfds` or `download`.
    raw: the user's own raw files and folders; if given, they are the source.
    variant: selects one of several versions of the data set.
    called: another name for the result, by default `name`.
    jobs: number of writing processes; the bytes do not depend on it.
    unverified: accept files whose hash differs from the published one or is unknown.

  Returns:
    The folder of the data set.

  Raises:
    DataPrepError: the data set is unknown, a package or raw file is missing, or writing failed.
  """
  name = ALIASES.get(name, name)
  if '://' in os.fspath(root := root or default_root()):
    raise DataPrepError(
      f'data sets are built on a disk, not in {root}; build with --out=DIR and copy '
      f'DIR/{called or name} there'
    )
  root, called = pathlib.Path(root), called or name
  about = about_of(name)
  _check_options(name, about, source, raw, called, variant)
  request = Request(
    name=name,
    downloads=root / 'downloads',
    source=source,
    raw=tuple(map(pathlib.Path, raw)),
    variant=variant,
    unverified=unverified,
  )
  contents = _module(name).load(request)
  folder = root / called
  card, written = records.write_dataset(folder, called, contents, limit=limit, jobs=jobs)
  for line in (*contents.checks, *check_list(card)):
    print(line)
  print(f'{called}: ' + (f'written to {folder}' if written else f'{folder} is complete already'))
  return folder


def default_root() -> str:
  """Returns the default folder of all data sets; reading uses the same."""
  return os.environ.get('HVAE_DATA') or 'data'


def about_of(name: str) -> About:
  """Returns the facts about a data set; raises DataPrepError if it is unknown."""
  about = _module(name).ABOUT
  return about if isinstance(about, About) else about[name]


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit code; 2 for an error that the user can fix."""
  options = _parser().parse_args(arguments)
  try:
    if options.list:
      _print_list()
    elif options.name is None:
      raise DataPrepError(f'name the data set to build, one of: {", ".join(BUILDERS)}.')
    else:
      build(
        options.name,
        options.out,
        options.limit,
        source=options.source,
        raw=options.raw,
        variant=options.variant,
        called=options.called,
        jobs=options.jobs or min(os.cpu_count() or 1, _MOST_JOBS),
        unverified=options.unverified,
      )
  except DataPrepError as error:
    print(f'data_prep.build: {error}', file=sys.stderr)
    return 2
  except BrokenPipeError:  # `--list | head`
    sys.stderr.close()
  except KeyboardInterrupt:
    print('data_prep.build: stopped; finished shards are kept, run it again', file=sys.stderr)
    return 130
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m data_prep.build',
    description=__doc__,
    allow_abbrev=False,
    epilog='The raw files come from --raw, else a folder that tensorflow-datasets prepared, else '
    'the network. --list tells the possible sources of each set.',
  )
  add = parser.add_argument
  add('name', nargs='?', metavar='NAME', help='the data set; see --list')
  add('--source', choices=SOURCES, default='auto', help='source of the raw files (auto)')
  add('--raw', metavar='PATH', action='append', default=[], help='a raw file or folder of yours')
  add('--variant', metavar='V', help='version of the set; see its builder')
  add('--out', metavar='DIR', help='folder of all data sets ($HVAE_DATA, data)')
  add('--as', metavar='NAME', dest='called', help='another name for the result')
  add('--limit', metavar='N', type=number, help='first N records of each split')
  add('--jobs', metavar='N', type=number, help='writing processes (one for each core, 8 at most)')
  add('--unverified', action='store_true', help='accept files that differ from the published ones')
  add('--list', action='store_true', help='list the data sets and stop')
  return parser


def _print_list() -> None:
  for name in BUILDERS:
    about, first = about_of(name), _module(name).__doc__.splitlines()[0]
    publishable = 'may be published' if about.samples_publishable else 'not to be published'
    print(f'{name:<21}{first}')
    for line in (
      f'records {about.records}; {about.splits}',
      f'built about {about.built}; sources: {", ".join(about.sources)}',
      f'licence: {about.licence}; samples {publishable}',
    ):
      print(textwrap.fill(line, 98, initial_indent=' ' * 21, subsequent_indent=' ' * 23))


def _check_options(
  name: str,
  about: About,
  source: str,
  raw: Sequence[str | os.PathLike],
  called: str,
  variant: str | None,
) -> None:
  """Raises DataPrepError for options that the data set does not have."""
  if about.embedded and (raw or source != 'auto'):
    raise DataPrepError(f'{name} has a fixed source; leave out --raw and --source')
  if about.embedded and variant not in (None, *about.variants):
    choices = f'the variants {", ".join(about.variants)}' if about.variants else 'no variants'
    raise DataPrepError(f'--variant={variant}: {name} has {choices}')
  if called != pathlib.PurePath(called).name or called in ('..', 'downloads'):
    raise DataPrepError(f'--as={called} must be the name of a folder, without a path')
  if called != name and called.startswith('demo_'):
    raise DataPrepError(f'--as={called}: names that begin with demo_ are for the embedded sets')


def _module(name: str) -> ModuleType:
  """Imports the builder of a data set."""
  if name not in BUILDERS:
    raise DataPrepError(f"there is no data set '{name}'; choose one of: {', '.join(BUILDERS)}.")
  try:
    return importlib.import_module(BUILDERS[name])
  except ModuleNotFoundError as error:
    raise DataPrepError(f'building {name} needs {error.name}; run: {_EXTRA}') from error


def number(text: str) -> int:
  """Parses an argument as an integer of at least 1; argparse shows the error."""
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not '{text}'")
  return int(text)


if __name__ == '__main__':
  sys.exit(main())
