"""Kills a training at random moments and proves that nothing was lost.

    launch/drill.sh --kills=30 --seed=0 --counts=2

A small run on several local processes is started, killed and started again, until it has been
killed as often as asked and is finished; `--counts=2,1,4` gives each start another number of
processes, of four fake devices in all. A kill is `kill -9` of one process or of all, or SIGTERM to
one or to all; at any moment, during the start, a save or an evaluation. Afterwards:

* every step has read the same examples, in the same order, as in a run that nobody disturbed, and
  no start has read others;
* the losses and the final state are those of that run: bit for bit on one number of processes,
  within 1e-5 on several, whose sums are added in another order.
"""

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import json
import os
import pathlib
import random
import signal
import tempfile
import time

import numpy as np

from tests.support.processes import Job
from tests.support.recorded import read_order

DEVICES = 4
FLAGS = (
  '--config=configs/demo_mnist.py:vdvae,debug',
  '--config.model.enc_blocks=32d32,1x1',
  '--config.model.dec_blocks=1x1,32m1',
  '--config.train.log_every=1',
  '--config.train.save_every=7',
  '--config.train.heartbeat_seconds=20',
  '--config.evals.elbo.every=10',
  '--config.evals.pictures.every=0',
)
MOMENTS = ('start', 'step', 'step', 'save', 'evaluation')
HOW = {
  'kill one': (signal.SIGKILL, False),
  'kill all': (signal.SIGKILL, True),
  'terminate one': (signal.SIGTERM, False),
  'terminate all': (signal.SIGTERM, True),
}


class Drill:
  """A run that is killed and started again."""

  def __init__(self, folder: pathlib.Path, data_root: str, counts: list[int], seed: int):
    self.folder, self.data_root, self.counts = folder, data_root, counts
    self.rng = random.Random(seed)
    self.moments, self.ways = self.deal(MOMENTS), self.deal(HOW)
    self.starts = 0
    self.hits = dict.fromkeys(MOMENTS, 0)

  def deal(self, cards: Sequence[str]) -> Iterator[str]:
    """Yields cards without end, in an order where a few kills meet many of them."""
    while True:
      yield from self.rng.sample(list(cards), len(cards))

  def start(self, name: str, num: int, num_steps: int) -> Job:
    """Starts the run `name` on `num` processes, or resumes it."""
    self.starts += 1
    folder = self.folder / name
    folder.mkdir(exist_ok=True)
    flags = (*FLAGS, f'--config.train.num_steps={num_steps}', f'--workdir={folder / "run"}')
    command = ('-m', 'tests.support.recorded', str(folder), *flags)
    logs = self.folder / f'logs-{self.starts}'
    return Job(logs, self.data_root, num, DEVICES, *command)

  def kill(self, number: int) -> None:
    """Starts the run again, and ends it at a random moment."""
    num = self.counts[number % len(self.counts)]
    moment, how = next(self.moments), next(self.ways)
    job = self.start('pieces', num, 10**9)  # never ends by itself
    hit = self.wait_for(moment, job)
    self.hits[moment] += hit
    signum, everyone = HOW[how]
    victims = job.processes if everyone else [self.rng.choice(job.processes)]
    for process in victims:
      if process.poll() is None:
        process.send_signal(signum)
    began = time.monotonic()
    codes = job.wait(60, 120)
    seconds = time.monotonic() - began
    print(
      f'kill {number + 1}: {num} processes, {how} at {moment}{"" if hit else " (missed)"}, '
      f'codes {codes} after {seconds:.1f} s, step {self.latest()}',
      flush=True,
    )
    assert seconds < 115, job.text()
    if signum == signal.SIGTERM and hit and moment != 'start':
      assert codes == [0] * num, job.text()
    text = job.text()
    assert 'error: ' not in text or 'did not find each other' in text, text

  def wait_for(self, moment: str, job: Job) -> bool:
    """Waits for a moment of this kind; returns False if none came."""
    if moment == 'start':
      time.sleep(self.rng.uniform(0, 10))
      return True
    folder, log, began = self.folder / 'pieces', job.logs[0], time.time()
    happens = {
      'step': lambda: '\nstep ' in log.read_text(),
      'save': lambda: is_saving(folder / 'run', began),
      'evaluation': lambda: any(folder.glob('evaluating-*')),
    }[moment]
    for stale in folder.glob('evaluating-*'):  # of a start that was killed there
      stale.unlink()
    deadline = time.monotonic() + 120
    while not happens():
      if time.monotonic() > deadline or job.processes[0].poll() is not None:
        return False
      time.sleep(0.002)
    time.sleep(self.rng.uniform(0, {'step': 3, 'save': 0.02, 'evaluation': 0.1}[moment]))
    return True

  def latest(self) -> int:
    folder = self.folder / 'pieces' / 'run' / 'checkpoints'
    return max((int(p.name) for p in folder.glob('*') if p.name.isdigit()), default=0)

  def finish(self) -> int:
    """Ends the run, makes the same run undisturbed, and returns the number of steps."""
    end = self.latest() + 5
    for name in ('pieces', 'whole'):
      job = self.start(name, self.counts[0], end)
      assert job.wait(60, 1200) == [0] * self.counts[0], job.text()
    return end

  def compare(self, end: int) -> None:
    """Raises AssertionError if the two runs differ."""
    orders = [read_order(self.folder / name) for name in ('pieces', 'whole')]
    steps = range(1, end + 1)
    assert sorted(orders[1]) == list(steps)
    for step in steps:
      assert orders[0][step] == orders[1][step], f'step {step} has read other examples'
    bitwise = len(set(self.counts)) == 1
    losses = [read_losses(self.folder / name / 'run') for name in ('pieces', 'whole')]
    pieces, whole = ([values.get(step) for step in steps] for values in losses)
    _equal(pieces, whole, bitwise, 'losses')
    states = [final_state(self.folder / name / 'run', end) for name in ('pieces', 'whole')]
    assert states[0].keys() == states[1].keys()
    for name, array in states[1].items():
      _equal(states[0][name], array, bitwise, name)


def is_saving(workdir: pathlib.Path, since: float) -> bool:
  """Returns whether a save is in progress; a kill may have left an older one."""
  for path in (workdir / 'checkpoints').glob('*tmp*'):
    with contextlib.suppress(OSError):  # it has just ended
      if path.stat().st_mtime > since:
        return True
  return False


def _equal(values, expected, bitwise: bool, name: str) -> None:
  if bitwise:
    np.testing.assert_array_equal(values, expected, err_msg=name)
  else:
    # Relative to the largest value: a sum that is nearly 0 consists of rounding.
    limit = 1e-5 * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=limit, err_msg=name)


def read_losses(workdir: pathlib.Path) -> dict[int, float]:
  """Returns step -> loss; all starts that made a step must have the same loss there."""
  losses = {}
  for path in sorted((workdir / 'train').glob('metrics-*.jsonl')):
    for line in path.read_text().splitlines():
      try:
        record = json.loads(line)
      except ValueError:
        continue  # cut off by a kill
      if 'train/loss' in record:
        before = losses.setdefault(record['step'], record['train/loss'])
        np.testing.assert_allclose(record['train/loss'], before, rtol=1e-5)
  return losses


def final_state(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
  """Returns the arrays of a checkpoint by name."""
  from hvae_tpu.devices import sharding
  from hvae_tpu.runs.checkpoints import Checkpoints

  store = Checkpoints(workdir, read_only=True)
  mesh = sharding.make_mesh(-1, 1)
  fields = ('params', 'ema_params', 'opt_state')
  state = {field: store.restore_named(step, field, mesh) for field in fields}
  store.close()
  return {f'{field}/{name}': a for field, arrays in state.items() for name, a in arrays.items()}


def run(
  kills: int, seed: int, counts: list[int], limit: float, folder: pathlib.Path, data_root: str
) -> dict[str, int]:
  """Returns how often each kind of moment was hit; raises AssertionError if anything was lost."""
  began = time.monotonic()
  print(f'seed {seed}, processes {counts}')
  drill = Drill(folder, data_root, counts, seed)
  done = 0
  while done < kills and time.monotonic() - began < limit:
    drill.kill(done)
    done += 1
  end = drill.finish()
  drill.compare(end)
  equal = 'bit for bit' if len(set(counts)) == 1 else 'within 1e-5'
  print(
    f'{done} of {kills} kills in {time.monotonic() - began:.0f} s, moments {drill.hits}; {end} '
    f'steps: order of the data equal, losses and state equal {equal}'
  )
  return drill.hits


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--kills', type=int, default=5)
  parser.add_argument('--seed', type=int, default=None, help='of the moments; default: the clock')
  parser.add_argument('--counts', default='2', help='processes of the starts in turn: 1, 2 or 4')
  parser.add_argument('--limit', type=float, default=3600, help='seconds; then no more kills')
  options = parser.parse_args()
  seed = int(time.time()) if options.seed is None else options.seed
  counts = [int(count) for count in options.counts.split(',')]
  with tempfile.TemporaryDirectory() as folder:
    root = os.environ.get('HVAE_DATA', 'data')
    run(options.kills, seed, counts, options.limit, pathlib.Path(folder), root)


if __name__ == '__main__':
  main()
