"""Two real processes of four fake devices each, against one of eight: the same run."""

import json
import pathlib
import signal
import time

import pytest

from tests.processes import Job

FLAGS = (
  '--config=configs/demo_mnist.py:vdvae,debug',
  '--config.model.enc_blocks=32d32,1x1',
  '--config.model.dec_blocks=1x1,32m1',
  '--config.train.log_every=1',
  '--config.train.save_every=3',
  '--config.evals.batch_size=16',
  '--config.evals.elbo.every=3',
  '--config.evals.pictures.every=3',
  '--config.evals.pictures.num=8',  # as many as devices: the pictures too are spread over them
)


def training(folder: pathlib.Path, data_root, num: int, *flags: str) -> Job:
  """One training on `num` processes, eight devices in all."""
  command = ('-m', 'hvae_tpu.main', *FLAGS, *flags, f'--workdir={folder / "run"}')
  return Job(folder, data_root, num, 8, *command)


def values(folder: pathlib.Path, name: str) -> dict[int, float]:
  """Step -> value of a scalar, over all starts."""
  found = {}
  for path in sorted((folder / 'run' / 'train').glob('metrics-*.jsonl')):
    for line in path.read_text().splitlines():
      record = json.loads(line)
      if name in record:
        found[record['step']] = record[name]
  return found


@pytest.fixture(scope='module')
def runs(data_root, tmp_path_factory):
  """Six steps of one process; three of two and three of one; three of one and three of two."""
  folders = {}
  for name, counts in {'one': (1,), 'two, one': (2, 1), 'one, two': (1, 2)}.items():
    folders[name] = tmp_path_factory.mktemp('processes')
    for i, num in enumerate(counts):
      steps = 6 // len(counts) * (i + 1)
      job = training(folders[name], data_root, num, f'--config.train.num_steps={steps}')
      assert job.wait() == [0] * num, job.text()
  return folders


@pytest.mark.parametrize('name', ['two, one', 'one, two'])
@pytest.mark.parametrize('scalar', ['train/loss', 'elbo/neg_elbo'])
def test_losses_do_not_depend_on_the_number_of_processes(runs, name, scalar):
  expected = values(runs['one'], scalar)
  assert set(expected) == (set(range(1, 7)) if scalar == 'train/loss' else {3, 6})
  # Sums over devices may be added in another order.
  assert values(runs[name], scalar) == pytest.approx(expected, rel=1e-6)


def test_one_process_writes(runs):
  assert len(list((runs['two, one'] / 'run' / 'train').glob('metrics-*.jsonl'))) == 2
  assert 'saved step 3' not in (runs['two, one'] / '2-1.txt').read_text()


def test_terminating_one_saves_the_same_step_on_both(data_root, tmp_path):
  job = training(tmp_path, data_root, 2, '--config.train.num_steps=1000000')
  deadline = time.monotonic() + 200
  while 'step 4/' not in job.logs[0].read_text() and time.monotonic() < deadline:
    time.sleep(0.1)
  job.processes[1].send_signal(signal.SIGTERM)
  assert job.wait() == [0, 0], job.text()
  saved = [line for line in job.logs[0].read_text().splitlines() if line.startswith('saved step')]
  steps = {int(p.name) for p in (tmp_path / 'run' / 'checkpoints').iterdir() if p.name.isdigit()}
  assert len(saved) == 1 and f'saved step {max(steps)} ' in saved[0]
