"""Reading speed of a data set: `python -m data_prep.bench NAME --batch=128 --workers=0,1,2`.

It times three ways to read the same examples in one process: a loop over a NumPy array in memory,
which is the upper bound for anything that shuffles and batches; raw reads of the records in random
order; and the input pipeline of training, for each number of worker processes and with the records
in memory. Each figure is the median of five rounds after a warm-up round.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
import functools
import itertools
import pathlib
import statistics
import sys
import time

from absl import flags
import grain
import numpy as np

from data_prep import build
from hvae_tpu import data
from hvae_tpu.errors import UserError

_ROUNDS = 5
_MAX_IN_MEMORY = 2**31  # bytes; larger views are not loaded for the NumPy loop


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit code; 2 for an error that the user can fix."""
  options = _parser().parse_args(arguments)
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain's workers read flags
  try:
    dataset = data.open_dataset(options.name, options.out or build.default_root())
    view = options.view or next(iter(dataset.card['views']))
    _bench(dataset, view, options)
  except UserError as error:
    print(f'data_prep.bench: {error}', file=sys.stderr)
    return 2
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog='python -m data_prep.bench', description=__doc__)
  add = parser.add_argument
  add('name', metavar='NAME', help='the data set')
  add('--out', metavar='DIR', help='folder of all data sets ($HVAE_DATA, data)')
  add('--view', metavar='VIEW', help='which view (the first)')
  add('--batch', metavar='N', type=build.number, default=128, help='examples in a batch (128)')
  add(
    '--workers',
    metavar='N,N',
    type=_whole_numbers,
    default=(0,),
    help='worker processes to try (0)',
  )
  add(
    '--epochs', metavar='N', type=build.number, default=10, help='passes over the view a round (10)'
  )
  add('--seq_len', metavar='N', type=int, default=0, help='frames of an example of a video (all)')
  add('--transforms', metavar='T,T', default='', help='as in config.data.train_transforms')
  return parser


def _bench(dataset: data.Dataset, view: str, options: argparse.Namespace) -> None:
  """Times all ways of reading and prints the rates."""
  batch, seq_len = options.batch, options.seq_len
  count = data.num_examples(dataset, view, seq_len)
  if batch > count:
    raise UserError(f'--batch={batch} is larger than the view {view!r} with {count} examples')
  batches = max(1, count * options.epochs // batch)
  size = _example_size(dataset, view, seq_len)
  print(f'{dataset.card["name"]} {view}: {count} examples of {size} bytes; {batches} batches')
  ceiling = None
  if count * size <= _MAX_IN_MEMORY:
    arrays = _load(dataset, view, seq_len)
    ceiling = _measure(lambda: _loop(arrays, batch), batches, batch)
    _print_rate('NumPy loop in memory', ceiling, size)
  else:
    print(f'NumPy loop: left out, as {count * size / 1e9:.1f} GB exceed its limit')
  # A record of a video is a part of an example, so the rate is converted by bytes.
  raw = _measure(lambda: _read_raw(dataset, view, batch), batches, batch)
  raw = raw * _record_size(dataset) / size
  _print_rate('raw reads', raw, size, ceiling)
  for number in options.workers:
    pipeline = functools.partial(
      data.train_batches,
      dataset,
      view,
      batch_size=batch,
      seed=0,
      seq_len=options.seq_len,
      transforms=tuple(name for name in options.transforms.split(',') if name),
      num_workers=number,
    )
    rate = _measure(pipeline, batches, batch)
    _print_rate(f'pipeline, {number} workers', rate, size, ceiling)
    if not number:
      rate = _measure(functools.partial(pipeline, cache_bytes=_MAX_IN_MEMORY), batches, batch)
      _print_rate('pipeline, in memory', rate, size, ceiling)


def _measure(make: Callable[[], Iterator[object]], batches: int, batch: int) -> float:
  """Returns examples/s: the median over rounds of `batches` batches from one endless iterator."""
  source = make()
  rates = []
  for _ in range(_ROUNDS + 1):
    start = time.perf_counter()
    for _ in itertools.islice(source, batches):
      pass
    rates.append(batches * batch / (time.perf_counter() - start))
  source.close()
  return statistics.median(rates[1:])  # the first round also starts threads or processes


def _load(dataset: data.Dataset, view: str, seq_len: int) -> dict[str, np.ndarray]:
  """Loads all examples of a view, by field."""
  batches = list(data.eval_batches(dataset, view, batch_size=1, seq_len=seq_len))
  return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _example_size(dataset: data.Dataset, view: str, seq_len: int) -> int:
  """Returns the bytes of one example; reads only one."""
  batches = data.eval_batches(dataset, view, batch_size=1, seq_len=seq_len)
  first = next(batches)
  batches.close()
  return sum(array.nbytes for name, array in first.items() if name != 'mask')


def _record_size(dataset: data.Dataset) -> int:
  """Returns the bytes of one record."""
  return sum(
    int(np.prod(field['shape'], dtype=np.int64)) * np.dtype(field['dtype']).itemsize
    for field in dataset.card['fields'].values()
  )


def _loop(arrays: dict[str, np.ndarray], batch: int) -> Iterator[dict[str, np.ndarray]]:
  """Yields shuffled batches of arrays, endlessly."""
  rng = np.random.default_rng(0)
  count = len(next(iter(arrays.values())))
  while True:
    order = rng.permutation(count)
    for start in range(0, count - batch + 1, batch):
      selected = order[start : start + batch]
      yield {name: array[selected] for name, array in arrays.items()}


def _read_raw(dataset: data.Dataset, view: str, batch: int) -> Iterator[list[bytes]]:
  """Yields batches of undecoded records in random order, endlessly."""
  shards = dataset.card['splits'][dataset.view(view)['split']]['shards']
  files = [str(pathlib.Path(dataset.directory) / shard['file']) for shard in shards]
  source = grain.sources.ArrayRecordDataSource(files)
  indices = dataset.indices(view)
  rng = np.random.default_rng(0)
  while True:
    yield source.__getitems__(rng.choice(indices, batch).tolist())


def _print_rate(label: str, rate: float, size: int, ceiling: float | None = None) -> None:
  ratio = f', {rate / ceiling:.0%} of the NumPy loop' if ceiling else ''
  print(f'{label:<22}{rate:12,.0f} examples/s{rate * size / 1e6:10,.1f} MB/s{ratio}')


def _whole_numbers(text: str) -> tuple[int, ...]:
  """Parses an argument as integers with commas; argparse shows the error."""
  if not all(part.isdecimal() for part in text.split(',')):
    raise argparse.ArgumentTypeError(f"must be whole numbers with commas, not '{text}'")
  return tuple(map(int, text.split(',')))


if __name__ == '__main__':
  sys.exit(main())
