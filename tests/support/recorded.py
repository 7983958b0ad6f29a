"""Trains, and writes down what it reads: `recorded.py FOLDER FLAGS...`.

In FOLDER: `order-<time>-<process>.jsonl`, a line for every batch that went to the devices, with
`step`, the number `first` of its first row, and a hash of each row; and `evaluating-<process>`
while an evaluation lasts.
"""

import functools
import hashlib
import json
import pathlib
import sys
import time

import jax
import numpy as np

from hvae_tpu import data, main
from hvae_tpu.evals import averaging

train_batches, averages = data.train_batches, averaging.averages


def digest(batch: dict[str, np.ndarray], row: int) -> str:
  """Returns the hash of one example and of its transforms' draws."""
  sha256 = hashlib.sha256()
  for name in sorted(batch):
    sha256.update(np.ascontiguousarray(batch[name][row]))
  return sha256.hexdigest()[:16]


def recorded(folder: pathlib.Path, *args, start_step=0, **options):
  process = jax.process_index()
  path = folder / f'order-{time.time_ns()}-{process}.jsonl'
  source = train_batches(*args, start_step=start_step, **options)
  with path.open('w', buffering=1) as lines:
    try:
      for step, batch in enumerate(source, start_step + 1):
        rows = [digest(batch, row) for row in range(len(next(iter(batch.values()))))]
        lines.write(json.dumps({'step': step, 'first': process * len(rows), 'rows': rows}) + '\n')
        yield batch
    finally:
      source.close()


def marked(folder: pathlib.Path, *args):
  marker = folder / f'evaluating-{jax.process_index()}'
  marker.touch()
  try:
    return averages(*args)
  finally:
    marker.unlink()


def read_order(path: pathlib.Path) -> dict[int, dict[int, str]]:
  """Returns step -> row of the global batch -> its hash, over all starts and processes.

  Raises:
    AssertionError: a row was read more than once, and not the same.
  """
  order = {}
  for file in sorted(path.glob('order-*.jsonl')):
    for line in file.read_text().splitlines():
      try:
        record = json.loads(line)
      except ValueError:
        continue  # cut off by a kill
      rows = order.setdefault(record['step'], {})
      for row, row_hash in enumerate(record['rows'], record['first']):
        assert rows.setdefault(row, row_hash) == row_hash, (
          f'{file}: row {row} of step {record["step"]}'
        )
  return order


if __name__ == '__main__':
  folder = pathlib.Path(sys.argv[1])
  data.train_batches = functools.partial(recorded, folder)
  averaging.averages = functools.partial(marked, folder)
  sys.exit(main.main([sys.argv[0], *sys.argv[2:]]))
