"""Data sets: folders of records, described by their data card, `dataset.json`."""

import dataclasses
import hashlib
import os
import pathlib
from typing import Any

import numpy as np

from hvae_tpu.data.copies import local_copy
from hvae_tpu.errors import UserError
from hvae_tpu.storage import buckets, files

_FORMAT = 1  # of the data cards that this file reads


@dataclasses.dataclass(frozen=True)
class Dataset:
  """An opened folder of records; `card` is its `dataset.json`.

  A set called `demo_*` stands in for any other: its views `train`, `valid` and `test` serve as
  those of any paper.
  """

  card: dict[str, Any]
  directory: pathlib.Path

  def view(self, name: str) -> dict[str, Any]:
    """Returns the card's entry of a view.

    Raises:
      UserError: there is no such view.
    """
    return self.card['views'][self._name_of(name)]

  def size(self, view: str) -> int:
    """Number of examples in a view; UserError if there is no such view."""
    return self.view(view)['count']

  def indices(self, view: str) -> np.ndarray:
    """Returns the positions of a view's examples in its split, int64 [size], in the view's order.

    Raises:
      UserError: there is no such view, or its index list is missing or damaged.
    """
    view = self._name_of(view)
    entry = self.card['views'][view]
    if entry['indices'] == 'all':
      return np.arange(entry['count'])
    path = self.directory / entry['indices']
    try:
      with np.load(path) as lists:
        indices = lists[view]
    except Exception as error:  # zip and header damage shows as many types
      raise self.damaged(path, f'has no readable index list of view {view!r}') from error
    if hashlib.sha256(indices.astype('<i8').tobytes()).hexdigest() != entry['sha256']:
      raise self.damaged(path, f'differs from the data card in view {view!r}')
    return indices

  def _name_of(self, view: str) -> str:
    """Returns the name of a view in the card; UserError if there is none."""
    views = self.card['views']
    if view not in views and self.card['name'].startswith('demo_'):
      view = view.rpartition('/')[2]
    if view not in views:
      known = ', '.join(views)
      raise UserError(f'{self.card["name"]} has no view {view!r}; choose one of: {known}')
    return view

  def damaged(self, path: pathlib.Path, problem: str) -> UserError:
    """Returns the error to raise for a damaged file of this data set."""
    return UserError(
      f'{path} {problem}; delete {self.directory} and run: '
      f'python -m data_prep.build {self.card["name"]} --out={self.directory.parent}'
    )


def open_dataset(name: str, root: str | os.PathLike = '') -> Dataset:
  """Opens the folder `<root>/<name>`.

  Args:
    name: name of the data set.
    root: folder of all data sets; '': `$HVAE_DATA`, else `data`. A data set in a bucket is copied
      to this machine, see `copies`.

  Raises:
    UserError: the data set is missing, was written in another format, or a shard is missing or
      has lost bytes.
  """
  root = os.fspath(root or os.environ.get('HVAE_DATA') or 'data')
  folder = local_copy(root, name) if buckets.is_remote(root) else pathlib.Path(root) / name
  path = folder / 'dataset.json'
  build = f'run: python -m data_prep.build {name} --out={root}'
  missing = f'data set {name!r} is not in {root} (no {path})'
  card = files.read_json(path, build, missing=missing)
  if card.get('format') != _FORMAT:
    raise UserError(
      f'{path} is of format {card.get("format")}, but this version reads format {_FORMAT}; '
      f'delete {path.parent} and {build}'
    )
  dataset = Dataset(card, path.parent)
  for split in card['splits'].values():
    for shard in split['shards']:
      file = dataset.directory / shard['file']
      if not file.is_file():
        raise dataset.damaged(file, 'is missing')
      if file.stat().st_size != shard['bytes']:
        raise dataset.damaged(file, f'must have {shard["bytes"]} bytes, not {file.stat().st_size}')
  return dataset


def check_required(dataset: Dataset, view: str, variant: str, split_sha256: str) -> None:
  """Refuses a different version of the data set that a published config was made for.

  Sets called `demo_*` pass: nobody takes them for the real one.

  Args:
    dataset: the opened data set.
    view: view that training reads.
    variant: variant that the card must name; '': any.
    split_sha256: checksum that the index list of the view must have; '': any.

  Raises:
    UserError: it is another variant, or another split.
  """
  card = dataset.card
  if card['name'].startswith('demo_'):
    return
  if variant and card.get('variant') != variant:
    raise UserError(
      f'config.data.require.variant={variant!r}, but {dataset.directory} holds the variant '
      f'{card.get("variant")!r}, whose likelihoods are not comparable; build the right one, or '
      "add --config.data.require.variant=''"
    )
  actual = dataset.view(view)['sha256']
  if split_sha256 and actual != split_sha256:
    limit = f', as only the first {card["limit"]} were built' if card.get('limit') else ''
    raise UserError(
      f'config.data.require.split_sha256={split_sha256[:12]}..., but view {view!r} of '
      f'{dataset.directory} has {actual[:12]}...: its examples are not those of the paper{limit}; '
      "build the right ones, or add --config.data.require.split_sha256=''"
    )
