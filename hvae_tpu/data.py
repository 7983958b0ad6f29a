"""ArrayRecord -> Grain -> batches of uint8 arrays; what is in a folder is told by its data card.

Training batch n is a function of (seed, n): the same for any number of processes and workers, so a
resumed run starts the pipeline at its step instead of saving an iterator. `data_prep` writes the
records: each is the fields' raw bytes, little-endian, in the order of the card.
"""

from collections.abc import Callable, Generator, Sequence
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import grain
import numpy as np

from hvae_tpu.errors import UserError

Batch = dict[str, np.ndarray]
_FORMAT = 1  # of the data cards that this file reads
_PICTURES = ('image', 'video', 'segmentation')  # fields [..., H, W, C]
# The elements are whole batches here, so a deep buffer would hold gigabytes of video.
_READING = grain.ReadOptions(num_threads=4, prefetch_buffer_size=4)


@dataclasses.dataclass(frozen=True)
class Dataset:
  """An opened folder of records; `card` is its `dataset.json`."""

  card: dict[str, Any]
  directory: pathlib.Path

  def view(self, name: str) -> dict[str, Any]:
    """The card's entry of a view.

    Raises:
      UserError: there is no such view.
    """
    views = self.card['views']
    if name not in views:
      known = ', '.join(views)
      raise UserError(f'{self.card["name"]} has no view {name!r}; choose one of: {known}')
    return views[name]

  def size(self, view: str) -> int:
    """Number of examples in a view; UserError if there is no such view."""
    return self.view(view)['count']

  def indices(self, view: str) -> np.ndarray:
    """Where the examples of a view stand in its split, int64 [size], in the view's order.

    Raises:
      UserError: there is no such view, or its index list is missing or damaged.
    """
    entry = self.view(view)
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

  def damaged(self, path: pathlib.Path, problem: str) -> UserError:
    """The error that says what is wrong with a file of this data set."""
    return UserError(
      f'{path} {problem}; delete {self.directory} and run: '
      f'python -m data_prep.build {self.card["name"]} --out={self.directory.parent}'
    )


def open_dataset(name: str, root: str | os.PathLike = '') -> Dataset:
  """Opens the folder `<root>/<name>`.

  Args:
    name: the name that it was built under.
    root: the folder of all data sets; '' stands for `$HVAE_DATA`, else `data`.

  Raises:
    UserError: the data set is not there, was written in another format, or a shard is missing or
      has lost bytes.
  """
  root = pathlib.Path(root or os.environ.get('HVAE_DATA') or 'data')
  path = root / name / 'dataset.json'
  try:
    card = json.loads(path.read_text())
  except FileNotFoundError as error:
    raise UserError(
      f'data set {name!r} is not in {root} (no {path}); '
      f'run: python -m data_prep.build {name} --out={root}'
    ) from error
  except (OSError, ValueError) as error:
    raise UserError(f'{path} cannot be read as a data card: {error}') from error
  if card.get('format') != _FORMAT:
    raise UserError(
      f'{path} is of format {card.get("format")}, but this version reads format {_FORMAT}; '
      f'delete {path.parent} and run: python -m data_prep.build {name} --out={root}'
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


def flip(example: Batch, rng: np.random.Generator) -> Batch:
  """Mirrors all pictures of an example left to right, or none of them, with equal chances."""
  if rng.random() < 0.5:
    return example
  return {
    name: array[..., ::-1, :] if name in _PICTURES else array for name, array in example.items()
  }


def binarize(example: Batch, rng: np.random.Generator) -> Batch:
  """Draws every pixel of `image` as 255 with probability value / 255, else as 0."""
  image = example['image']
  black = rng.random(image.shape, np.float32) >= image / np.float32(255)
  return {**example, 'image': np.where(black, np.uint8(0), np.uint8(255))}


TRANSFORMS: dict[str, Callable[[Batch, np.random.Generator], Batch]] = {
  'flip': flip,
  'binarize': binarize,
}


def train_batches(
  dataset: Dataset,
  view: str,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  transforms: Sequence[str] = (),
  num_workers: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Generator[Batch, None, None]:
  """This process's rows of the global batches start_step, start_step + 1, ..., without end.

  The view is shuffled anew in every epoch; epochs follow each other without a gap, so a batch may
  hold the end of one and the start of the next. The processes' rows, put one after another in
  process order, are the global batch, row for row. Close the generator to stop its threads or
  worker processes.

  Args:
    dataset, view: where the examples come from.
    batch_size: global; must divide by `process_count`.
    seed: of the order and of the transforms, 0 to 2**32 - 1.
    start_step: number of the first batch.
    transforms: names in `TRANSFORMS`, applied in order. Their draws depend on the seed and on the
      place of the example in the endless sequence.
    num_workers: worker processes; 0 reads in threads of this process, which is faster unless the
      transforms are costly. Workers need a main module that is a file, guarded by
      `if __name__ == '__main__'`, and parsed absl flags.
    process_index, process_count: of this host among all hosts.

  Yields:
    Dicts of arrays [batch_size // process_count, ...], one for every field of the card.

  Raises:
    UserError: an unknown view or transform, or sizes that do not fit; on reading, a damaged shard.
  """
  size = dataset.size(view)
  if size < batch_size:
    raise UserError(
      f'data.train_split={view!r} of {dataset.card["name"]} has {size} examples, fewer than '
      f'train.batch_size={batch_size}; lower train.batch_size or choose a larger view'
    )
  _check(transforms, seed, batch_size, process_count, 'train.batch_size=')
  examples = (
    grain.MapDataset.source(_Records(dataset, view, dataset.indices(view)))
    .shuffle(seed)  # before repeat: each epoch gets its own order
    .repeat()
  )
  if transforms:
    examples = examples.map_with_index(_Augment(tuple(transforms), seed))
  batches = _share(examples, batch_size, process_index, process_count)[start_step:]
  return _stream(batches, num_workers)


def train_indices(
  dataset: Dataset, view: str, *, batch_size: int, seed: int, step: int
) -> np.ndarray:
  """Which records of the view's split make up global training batch `step`: int64 [batch_size]."""
  order = grain.MapDataset.source(dataset.indices(view)).shuffle(seed).repeat()
  return np.array([order[place] for place in range(step * batch_size, (step + 1) * batch_size)])


def eval_batches(
  dataset: Dataset,
  view: str,
  *,
  batch_size: int,
  seed: int = 0,
  transforms: Sequence[str] = (),
  process_index: int = 0,
  process_count: int = 1,
) -> Generator[Batch, None, None]:
  """This process's rows of a view from its first to its last example, each once.

  All batches have the same size: the last global batch is filled up with copies of the last
  example. Every process gets the same number of batches, some perhaps of padding alone.

  Args:
    dataset, view: where the examples come from.
    batch_size: global; must divide by `process_count`.
    seed: of the transforms. An example's draws depend on the seed and on its place in the split,
      so they are the same in every pass, and in every view that holds it.
    transforms: names in `TRANSFORMS`, applied in order.
    process_index, process_count: of this host among all hosts.

  Yields:
    Dicts of arrays [batch_size // process_count, ...], one for every field of the card, and
    `mask`, bool [batch_size // process_count], False on padding.

  Raises:
    UserError: an unknown or empty view, an unknown transform, or sizes that do not fit; on
      reading, a damaged shard.
  """
  size = dataset.size(view)
  if not size:
    raise UserError(f'view {view!r} of {dataset.card["name"]} is empty; choose another view')
  _check(transforms, seed, batch_size, process_count, 'evaluation batch_size=')
  indices = np.pad(dataset.indices(view), (0, -size % batch_size), mode='edge')
  examples = grain.MapDataset.source(_Records(dataset, view, indices))
  if transforms:
    examples = examples.map_with_index(_Augment(tuple(transforms), seed, indices))
  examples = examples.map_with_index(_MarkPadding(size))
  return _stream(_share(examples, batch_size, process_index, process_count), num_workers=0)


@dataclasses.dataclass(frozen=True)
class _Shard:
  """A file and its number of records, in the form that spares ArrayRecord to open it for that."""

  filename: str
  skip: int
  take: int
  examples_in_shard: int


class _Records:
  """The decoded examples of a view, by place in `indices`; picklable for worker processes."""

  def __init__(self, dataset: Dataset, view: str, indices: np.ndarray):
    shards = dataset.card['splits'][dataset.view(view)['split']]['shards']
    self._dataset = dataset
    self._indices = indices
    self._files = [dataset.directory / shard['file'] for shard in shards]
    counts = [shard['count'] for shard in shards]
    self._stops = np.cumsum(counts)
    self._source = grain.sources.ArrayRecordDataSource(
      [_Shard(str(file), 0, count, count) for file, count in zip(self._files, counts, strict=True)]
    )
    self._fields = []
    self._bytes = 0
    for name, field in dataset.card['fields'].items():
      dtype = np.dtype(field['dtype']).newbyteorder('<')
      count = int(np.prod(field['shape'], dtype=np.int64))
      self._fields.append((name, dtype, count, self._bytes, field['shape']))
      self._bytes += count * dtype.itemsize

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, place: int) -> Batch:
    index = int(self._indices[place])
    try:
      record = self._source[index]
    except RuntimeError as error:
      raise self._damaged(index, f'cannot be read ({error})') from error
    if len(record) != self._bytes:
      raise self._damaged(index, f'must have {self._bytes} bytes, not {len(record)}')
    return {
      name: np.frombuffer(record, dtype, count, offset).reshape(shape)
      for name, dtype, count, offset, shape in self._fields
    }

  def _damaged(self, index: int, problem: str) -> UserError:
    shard = int(np.searchsorted(self._stops, index, side='right'))
    position = index - (self._stops[shard - 1] if shard else 0)
    return self._dataset.damaged(self._files[shard], f'is damaged: record {position} {problem}')


class _Augment(grain.transforms.MapWithIndex):
  """Applies transforms with a generator for each example, keyed by the seed and its place.

  With `keys`, the place is looked up there.
  """

  def __init__(self, names: tuple[str, ...], seed: int, keys: np.ndarray | None = None):
    self._names = names
    self._seed = seed
    self._keys = keys

  def map_with_index(self, index: int, example: Batch) -> Batch:
    key = index if self._keys is None else int(self._keys[index])
    rng = np.random.Generator(np.random.Philox(key=[self._seed, key]))
    for name in self._names:
      example = TRANSFORMS[name](example, rng)
    return example


class _MarkPadding(grain.transforms.MapWithIndex):
  """Adds `mask`: False from the place `size` on."""

  def __init__(self, size: int):
    self._size = size

  def map_with_index(self, index: int, example: Batch) -> Batch:
    return {**example, 'mask': np.array(index < self._size)}


def _check(
  transforms: Sequence[str], seed: int, batch_size: int, process_count: int, what: str
) -> None:
  for name in transforms:
    if name not in TRANSFORMS:
      raise UserError(f'there is no transform {name!r}; choose from: {", ".join(TRANSFORMS)}')
  if not 0 <= seed < 2**32:
    raise UserError(f'seed={seed} must lie between 0 and 2**32 - 1')
  if batch_size < 1 or batch_size % process_count:
    raise UserError(
      f'{what}{batch_size} must be a positive multiple of the {process_count} process(es)'
    )


def _share(
  examples: grain.MapDataset, batch_size: int, process_index: int, process_count: int
) -> grain.MapDataset:
  """This process's part of each global batch: contiguous rows.

  Batches are dealt out, not examples: dealing out examples would interleave the rows of a global
  batch, and what is keyed by the row (noise) would change with the number of processes.
  """
  batches = examples.batch(batch_size // process_count, drop_remainder=True)
  return batches[process_index::process_count]


def _stream(batches: grain.MapDataset, num_workers: int) -> Generator[Batch, None, None]:
  """Reads ahead, in threads or in worker processes, until closed."""
  stream = batches.to_iter_dataset(_READING)
  if num_workers:
    stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers))
  iterator = iter(stream)
  try:
    yield from iterator
  finally:
    iterator.close()
