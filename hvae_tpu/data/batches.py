"""Batches: order of the examples, shares of the processes, transforms, and reading ahead.

Grain reads whole batches ahead: decoding and stacking all examples of a batch at once is many times
faster than one by one.
"""

from collections.abc import Generator, Sequence
import functools
from typing import Any

import grain
import jax
import numpy as np

from hvae_tpu.data.datasets import Dataset
from hvae_tpu.data.items import Clips, Stills, items_of
from hvae_tpu.data.records import Batch, Records, check_fields
from hvae_tpu.data.transforms import Transform, parse
from hvae_tpu.errors import UserError

_ENDLESS = 2**40  # batches; Grain knows no infinity
# The elements are whole batches here, so a deep buffer would hold gigabytes of video.
_READING = grain.ReadOptions(num_threads=4, prefetch_buffer_size=4)


def train_batches(
  dataset: Dataset,
  view: str,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  fields: Sequence[str] = (),
  seq_len: int = 0,
  transforms: Sequence[str] = (),
  num_workers: int = 0,
  cache_bytes: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Generator[Batch, None, None]:
  """Yields this process's rows of the global batches start_step, start_step + 1, ..., endlessly.

  The view is shuffled anew in every epoch; epochs follow each other without a gap, so a batch may
  hold the end of one and the start of the next. The processes' rows, put one after another in
  process order, are the global batch, row for row. Close the generator to stop its threads or
  worker processes.

  Args:
    dataset: the opened data set.
    view: name of the view.
    batch_size: global; must divide by `process_count`.
    seed: seed of the order and of the transforms, 0 to 2**32 - 1.
    start_step: number of the first batch.
    fields: names of the fields of an example; (): all.
    seq_len: frames of a clip (video only), see `items`; 0: whole sequences.
    transforms: names, see `transforms.parse`, applied in order. Their random numbers depend on the
      seed and on the position of the example in the endless sequence.
    num_workers: worker processes; 0: threads of this process, which are faster unless the
      transforms are costly. Workers need a main module that is a file, guarded by
      `if __name__ == '__main__'`, and parsed absl flags.
    cache_bytes: a split up to this size is kept in memory, unless there are workers.
    process_index: number of this process, from 0.
    process_count: number of all processes.

  Yields:
    Dicts of arrays [batch_size // process_count, ...], one for every field.

  Raises:
    UserError: an unknown view or transform, or sizes that do not fit; on reading, a damaged shard.
  """
  items = items_of(dataset, view, seq_len)
  if len(items) < batch_size:
    raise UserError(
      f'data.train_split={view!r} of {dataset.card["name"]} has {len(items)} examples, fewer than '
      f'train.batch_size={batch_size}; lower train.batch_size or choose a larger view'
    )
  _check(seed, batch_size, process_count, 'train.batch_size=')
  parsed = parse(transforms)
  split = dataset.view(view)['split']
  records = Records(dataset, split, fields, 0 if num_workers else cache_bytes)
  share = (process_index, process_count)
  batches = _TrainBatches(records, items, batch_size, seed, parsed, share, start_step)
  # A batch from memory is ready before Grain's threads could hand it over.
  return _stream(batches, num_workers, ahead=bool(parsed) or not records.in_memory)


def train_indices(
  dataset: Dataset, view: str, *, batch_size: int, seed: int, step: int, seq_len: int = 0
) -> np.ndarray:
  """Returns the examples of the global training batch `step`: int64 [batch_size].

  They are record numbers in the view's split; for video, frame numbers.
  """
  items = items_of(dataset, view, seq_len)
  return items.keys(_shuffled(step * batch_size, batch_size, len(items), seed))


def eval_batches(
  dataset: Dataset,
  view: str,
  *,
  batch_size: int,
  seed: int = 0,
  fields: Sequence[str] = (),
  seq_len: int = 0,
  transforms: Sequence[str] = (),
  interleave_videos: bool = False,
  process_index: int = 0,
  process_count: int = 1,
) -> Generator[Batch, None, None]:
  """Yields this process's rows of a view, from its first to its last example, each once.

  All batches have the same size: the last global batch is filled up with copies of the last
  example. Every process gets the same number of batches, some perhaps of padding alone.

  Args:
    dataset, view, fields, seq_len, transforms: see `train_batches`.
    batch_size: global; must divide by `process_count`.
    seed: seed of the transforms. The random numbers of an example depend on the seed and on its
      position in the split. So they are the same in every pass, and in every view with it.
    interleave_videos: whether the first clips of all videos come before their second clips.
    process_index, process_count: see `train_batches`.

  Yields:
    Dicts of arrays [batch_size // process_count, ...], one for every field, and `mask`, bool
    [batch_size // process_count], False on padding.

  Raises:
    UserError: an unknown or empty view, an unknown transform, or sizes that do not fit; on
      reading, a damaged shard.
  """
  if not dataset.size(view):
    raise UserError(f'view {view!r} of {dataset.card["name"]} is empty; choose another view')
  _check(seed, batch_size, process_count, 'evaluation batch_size=')
  items = items_of(dataset, view, seq_len)
  items = items.interleaved() if interleave_videos else items
  records = Records(dataset, dataset.view(view)['split'], fields)
  share = (process_index, process_count)
  parsed = parse(transforms)
  return _stream(_EvalBatches(records, items, batch_size, seed, parsed, share), 0, ahead=True)


def num_examples(dataset: Dataset, view: str, seq_len: int = 0) -> int:
  """Number of examples in a view. For video, the number of clips of `seq_len` frames."""
  return len(items_of(dataset, view, seq_len))


def batch_spec(
  card: dict[str, Any],
  fields: Sequence[str],
  batch_size: int,
  *,
  seq_len: int = 0,
  transforms: Sequence[str] = (),
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns shapes and dtypes of a batch, without reading one.

  `card` is a data card; for the other arguments see `train_batches`. Whole sequences of a video set
  have the length of the training split's. A card without the layout of its videos has one sequence
  per record.
  """
  rng = np.random.default_rng(0)
  example = {}
  check_fields(card, fields)
  for name in fields:
    field = card['fields'][name]
    shape = tuple(field['shape'])
    if name == 'video':
      layout = card.get('details', {}).get('video', {'frames': {'train': shape[0]}})
      shape = (seq_len or int(np.max(next(iter(layout['frames'].values())))), *shape[1:])
    example[name] = np.zeros(shape, field['dtype'])
  for transform in parse(transforms):
    example = transform(example, rng)
  return {
    name: jax.ShapeDtypeStruct((batch_size, *array.shape), array.dtype)
    for name, array in example.items()
  }


def train_spec(card: dict[str, Any], section: Any, batch_size: int) -> dict[str, Any]:
  """Returns shapes and dtypes of a training batch; `section` is `config.data`."""
  return batch_spec(
    card,
    section.fields,
    batch_size,
    seq_len=section.seq_len,
    transforms=section.train_transforms,
  )


def check_transforms(card: dict[str, Any], section: Any) -> None:
  """Raises UserError if evaluations would see pictures of another size than training.

  `section` is `config.data`. Videos may be longer or shorter.
  """
  evaluated = batch_spec(
    card, section.fields, 1, seq_len=section.eval_seq_len, transforms=section.eval_transforms
  )
  for name, spec in train_spec(card, section, 1).items():
    start = 2 if name == 'video' else 1
    if spec.shape[start:] != evaluated[name].shape[start:]:
      raise UserError(
        f'config.data.train_transforms makes {name} {list(spec.shape[start:])}, but '
        f'config.data.eval_transforms {list(evaluated[name].shape[start:])}; give both the same '
        "size, for example with 'crop:N' and 'centre_crop:N'"
      )


class _Batches:
  """This process's rows of global batches, by number, as a sequence for Grain.

  Args:
    records: reader of the split.
    items: examples of the view.
    batch_size: global.
    seed: seed of the order and of the transforms.
    transforms: functions that are applied in order.
    share: number of this process, and number of all processes.
    start: number of the first batch.
  """

  def __init__(
    self,
    records: Records,
    items: Stills | Clips,
    batch_size: int,
    seed: int,
    transforms: tuple[Transform, ...],
    share: tuple[int, int],
    start: int = 0,
  ):
    self._records = records
    self._items = items
    self._batch_size = batch_size
    self._seed = seed
    self._transforms = transforms
    self._share = share
    self._start = start

  def _rows(self, number: int) -> tuple[int, int]:
    """Returns position and number of this process's rows of a batch."""
    return _rows(self._start + int(number), self._batch_size, *self._share)


class _TrainBatches(_Batches):
  """The batches of the endless shuffled sequence."""

  def __len__(self) -> int:
    return _ENDLESS

  def __getitem__(self, number: int) -> Batch:
    first, size = self._rows(number)
    chosen = _shuffled(first, size, len(self._items), self._seed)
    batch = self._items.read(self._records, chosen)
    return _transformed(batch, self._transforms, self._seed, range(first, first + size))


class _EvalBatches(_Batches):
  """The batches of one pass, with `mask`."""

  def __len__(self) -> int:
    return -(-len(self._items) // self._batch_size)

  def __getitem__(self, number: int) -> Batch:
    first, size = self._rows(number)
    positions = np.arange(first, first + size)
    chosen = np.minimum(positions, len(self._items) - 1)
    batch = self._items.read(self._records, chosen)
    batch = _transformed(batch, self._transforms, self._seed, self._items.keys(chosen).tolist())
    return {**batch, 'mask': positions < len(self._items)}


def _rows(number: int, batch_size: int, process_index: int, process_count: int) -> tuple[int, int]:
  """Returns the position of this process's first row of a global batch, and its number of rows.

  The rows of a process are neighbours. If single rows were dealt out, noise, which depends on the
  row, would change with the number of processes.
  """
  size = batch_size // process_count
  return number * batch_size + process_index * size, size


def _shuffled(first: int, size: int, count: int, seed: int) -> np.ndarray:
  """Returns the examples, of `count`, at the `size` positions from `first` on, over all epochs."""
  parts = []
  while size:
    epoch, start = divmod(first, count)
    parts.append(_order(seed, epoch, count)[start : start + size])
    first, size = first + len(parts[-1]), size - len(parts[-1])
  return np.concatenate(parts) if len(parts) > 1 else parts[0]


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
  """Returns the order of an epoch. NumPy never changes the stream of its legacy generator."""
  return np.random.RandomState([seed, epoch]).permutation(count)


def _transformed(
  batch: Batch, transforms: tuple[Transform, ...], seed: int, keys: Sequence[int]
) -> Batch:
  """Applies transforms; the generator of each example is keyed by the seed and its number."""
  if not transforms:
    return batch
  examples = []
  for row, key in enumerate(keys):
    rng = np.random.Generator(np.random.Philox(key=[seed, key]))
    example = {name: array[row] for name, array in batch.items()}
    for transform in transforms:
      example = transform(example, rng)
    examples.append(example)
  return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def _check(seed: int, batch_size: int, process_count: int, what: str) -> None:
  """Raises UserError for a seed or a batch size that is out of range."""
  if not 0 <= seed < 2**32:
    raise UserError(f'seed={seed} must lie between 0 and 2**32 - 1')
  if batch_size < 1 or batch_size % process_count:
    raise UserError(
      f'{what}{batch_size} must be a positive multiple of the {process_count} process(es)'
    )


def _stream(
  batches: _TrainBatches | _EvalBatches, num_workers: int, ahead: bool
) -> Generator[Batch, None, None]:
  """Yields batches until closed: read ahead in threads or workers, or else each when it is due."""
  if not ahead and not num_workers:
    for number in range(len(batches)):
      yield batches[number]
    return
  stream = grain.MapDataset.source(batches).to_iter_dataset(_READING)
  if num_workers:
    stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers))
  iterator = iter(stream)
  try:
    yield from iterator
  finally:
    iterator.close()
