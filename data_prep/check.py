"""Checks a built data set: `python -m data_prep.check NAME|DIR`.

Every shard is read whole: its hash, the number and the size of its records, the hash over all
pixels, and the index lists of the views are compared with the data card.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
import hashlib
import itertools
import json
import pathlib
import sys
from typing import Any

from array_record.python import array_record_module
import numpy as np

from data_prep import build
from data_prep.core import card, sources
from data_prep.errors import DataPrepError


def problems(folder: pathlib.Path) -> Iterator[str]:
  """Yields the problems of a built data set, a sentence each.

  Raises:
    DataPrepError: the folder has no readable data card.
  """
  data_card = _read_card(folder)
  intact = True
  for split, spec in data_card['splits'].items():
    for shard in spec['shards']:
      for problem in _shard_problems(folder, shard):
        intact = False
        yield problem
    total = sum(shard['count'] for shard in spec['shards'])
    if total != spec['count']:
      yield f"split '{split}': the shards hold {total} records, the card says {spec['count']}"
  if intact:
    yield from _pixel_problems(folder, data_card)
  yield from _view_problems(folder, data_card)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit code: 0 sound, 1 problems, 2 user error."""
  parser = argparse.ArgumentParser(prog='python -m data_prep.check', description=__doc__)
  parser.add_argument('name', metavar='NAME|DIR', help='a data set by name, or its folder')
  parser.add_argument('--out', metavar='DIR', help='folder of all data sets ($HVAE_DATA, data)')
  options = parser.parse_args(arguments)
  folder = pathlib.Path(options.name)
  if options.out or not (folder / card.CARD_FILE).exists():
    folder = pathlib.Path(options.out or build.default_root()) / options.name
  try:
    problem_list = list(problems(folder))
    for problem in problem_list:
      print(f'[bad] {problem}')
    if not problem_list:
      print(f'[ok] {folder}: all shards, records, pixels and views are as the card says')
      print('\n'.join(card.check_list(_read_card(folder))))
    return 1 if problem_list else 0
  except BrokenPipeError:  # `check NAME | head`
    sys.stderr.close()
    return 1
  except DataPrepError as error:
    print(f'data_prep.check: {error}', file=sys.stderr)
    return 2


def _read_card(folder: pathlib.Path) -> dict[str, Any]:
  """Reads the data card; raises DataPrepError if it is missing or damaged."""
  path = folder / card.CARD_FILE
  try:
    data_card = json.loads(path.read_text())
    if data_card['format'] != card.FORMAT:
      raise DataPrepError(
        f'{path} is of format {data_card["format"]}, this version reads {card.FORMAT}'
      )
    if missing := {'fields', 'splits', 'views'} - data_card.keys():
      raise DataPrepError(f'{path} lacks {", ".join(sorted(missing))}; build again')
    return data_card
  except FileNotFoundError as error:
    raise DataPrepError(
      f'{folder} holds no data set (there is no {card.CARD_FILE}); run: '
      f'python -m data_prep.build {folder.name} --out={folder.parent}'
    ) from error
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise DataPrepError(f'{path} cannot be read as a data card ({error!r}); build again') from error


def _shard_problems(folder: pathlib.Path, shard: Mapping[str, Any]) -> Iterator[str]:
  path = folder / shard['file']
  if not path.is_file():
    yield f'{path} is missing'
    return
  if path.stat().st_size != shard['bytes']:
    yield f'{path} has {path.stat().st_size} bytes, the card says {shard["bytes"]}'
    return
  if sources.sha256_file(path) != shard['sha256']:
    yield f'{path} does not have the sha256 that the card names'
    return
  try:
    reader = array_record_module.ArrayRecordReader(str(path))
    count = reader.num_records()
    reader.close()
  except (RuntimeError, ValueError) as error:
    yield f'{path} cannot be read: {error}'
    return
  if count != shard['count']:
    yield f'{path} holds {count} records, the card says {shard["count"]}'


def _pixel_problems(folder: pathlib.Path, data_card: Mapping[str, Any]) -> Iterator[str]:
  try:
    measured = card.measure(folder, data_card['splits'], data_card['fields'])
  except DataPrepError as error:
    yield str(error)
    return
  for key, value in measured.items():
    if data_card.get(key) != value:
      yield f'{folder}: {key} is {value}, the card says {data_card.get(key)}'


def _view_problems(folder: pathlib.Path, data_card: Mapping[str, Any]) -> Iterator[str]:
  lists = {}
  for name, view in data_card['views'].items():
    count = data_card['splits'][view['split']]['count']
    try:
      lists[name] = _indices(folder, name, view, count)
    except Exception as error:  # zip and header damage shows as many types
      yield f"view '{name}': its index list cannot be read ({error})"
      continue
    if hashlib.sha256(lists[name].astype('<i8').tobytes()).hexdigest() != view['sha256']:
      yield f"view '{name}': its index list is not the one that the card names"
    elif len(lists[name]) and not 0 <= lists[name].min() <= lists[name].max() < count:
      yield f"view '{name}' points outside the {count} records of '{view['split']}'"
  yield from _overlaps(data_card['views'], lists)


def _indices(folder: pathlib.Path, name: str, view: Mapping[str, Any], count: int) -> np.ndarray:
  if view['indices'] == 'all':
    return np.arange(count)
  with np.load(folder / view['indices']) as arrays:
    return arrays[name]


def _overlaps(
  views: Mapping[str, Mapping[str, Any]], lists: Mapping[str, np.ndarray]
) -> Iterator[str]:
  """Yields a problem for views of one paper that share records, unless they are identical."""
  for one, other in itertools.combinations(lists, 2):
    same_paper = one.rpartition('/')[0] == other.rpartition('/')[0]
    if not same_paper or views[one]['split'] != views[other]['split']:
      continue
    if views[one]['sha256'] == views[other]['sha256'] or 'all' in (one, other):
      continue
    shared = np.intersect1d(lists[one], lists[other])
    if len(shared):
      yield f"views '{one}' and '{other}' share {len(shared)} records"


if __name__ == '__main__':
  sys.exit(main())
