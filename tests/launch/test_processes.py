"""Two real processes of four fake devices each, against one of eight: the same run."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from launch import processes
from tests.support.processes import Job

pytestmark = pytest.mark.launch
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


def wait_for(log: pathlib.Path, text: str) -> None:
  deadline = time.monotonic() + 200
  while text not in log.read_text() and time.monotonic() < deadline:
    time.sleep(0.1)


def values(folder: pathlib.Path, name: str) -> dict[int, float]:
  """Step -> value of a scalar, over all starts."""
  scalars = {}
  for path in sorted((folder / 'run' / 'train').glob('metrics-*.jsonl')):
    for line in path.read_text().splitlines():
      record = json.loads(line)
      if name in record:
        scalars[record['step']] = record[name]
  return scalars


@pytest.fixture(scope='module')
def runs(data_root, tmp_path_factory):
  """Six steps of one process; three of one and three of two."""
  folders = {}
  for name, counts in {'one': (1,), 'one, two': (1, 2)}.items():
    folders[name] = tmp_path_factory.mktemp('processes')
    for i, num in enumerate(counts):
      steps = 6 // len(counts) * (i + 1)
      job = training(folders[name], data_root, num, f'--config.train.num_steps={steps}')
      assert job.wait() == [0] * num, job.text()
  return folders


@pytest.mark.parametrize('scalar', ['train/loss', 'elbo/neg_elbo'])
def test_losses_do_not_depend_on_the_number_of_processes(runs, scalar):
  expected = values(runs['one'], scalar)
  assert set(expected) == (set(range(1, 7)) if scalar == 'train/loss' else {3, 6})
  # Sums over devices may be added in another order.
  assert values(runs['one, two'], scalar) == pytest.approx(expected, rel=1e-6)


def test_one_process_writes(runs):
  assert len(list((runs['one, two'] / 'run' / 'train').glob('metrics-*.jsonl'))) == 2
  assert 'saved step 6' not in (runs['one, two'] / '2-1.txt').read_text()


def test_terminating_one_saves_the_same_step_on_both(data_root, tmp_path):
  job = training(tmp_path, data_root, 2, '--config.train.num_steps=1000000')
  wait_for(job.logs[0], 'step 4/')
  job.processes[1].send_signal(signal.SIGTERM)
  assert job.wait() == [0, 0], job.text()
  saved = [line for line in job.logs[0].read_text().splitlines() if line.startswith('saved step')]
  steps = {int(p.name) for p in (tmp_path / 'run' / 'checkpoints').iterdir() if p.name.isdigit()}
  assert len(saved) == 1 and f'saved step {max(steps)} ' in saved[0]


@pytest.mark.slow
def test_eval_mode_counts_on_two_as_on_one(runs, data_root):
  folder = runs['one, two']
  stored = folder / 'run' / 'eval' / 'test-6-ema.json'
  results = {}
  for num in (1, 2):
    job = training(folder, data_root, num, '--mode=eval')
    assert job.wait() == [0] * num, job.text()
    results[num] = json.loads(stored.read_text())['results']
    stored.unlink()
  assert 'stored in' not in job.logs[1].read_text() and 'examples' not in job.logs[1].read_text()
  assert results[1]['elbo/num_examples'] == results[2]['elbo/num_examples'] == 250
  assert results[2].keys() == results[1].keys()
  for name, value in results[1].items():
    assert results[2][name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize('victim', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_others_end_when_one_is_killed(victim, data_root, tmp_path):
  flags = [*FLAGS, '--config.train.num_steps=1000000', '--config.train.heartbeat_seconds=20']
  command = [sys.executable, 'launch/processes.py', '--num=2', '--devices=4', f'--logs={tmp_path}']
  with subprocess.Popen(
    [*command, '--', *flags, f'--workdir={tmp_path / "run"}'],
    cwd=processes.ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  ) as launcher:
    number = f'process {victim} has the number '
    line = next(line for line in launcher.stdout if line.startswith(number))
    wait_for(tmp_path / '2-0.txt', 'step 4/')
    deadline = time.monotonic() + 60
    while processes.last_saved(tmp_path / 'run') == 'none' and time.monotonic() < deadline:
      time.sleep(0.1)  # a save goes on beside the next steps
    os.kill(int(line.removeprefix(number).split()[0]), signal.SIGKILL)
    began = time.monotonic()
    text = launcher.stdout.read()
    assert launcher.wait(100) == 128 + signal.SIGKILL, text
  assert time.monotonic() - began < 60
  assert f'process {victim} ended first, with signal SIGKILL' in text
  saved = processes.last_saved(tmp_path / 'run')
  assert int(saved) >= 3 and f'last saved step: {saved}\n' in text
  assert 'to resume: ' in text and f'--workdir={tmp_path / "run"}' in text
  codes = text.rstrip().rpartition('exit codes: ')[2].split(', ')
  assert int(codes[victim]) == -signal.SIGKILL and int(codes[1 - victim]) not in (0, -9)


@pytest.mark.slow
def test_nobody_waits_for_one_that_fails_alone(data_root, tmp_path):
  """Only process 0 writes, so only it fails where the disk does not let it."""
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'train').write_text('a file where a folder must be')
  began = time.monotonic()
  job = training(tmp_path, data_root, 2, '--config.train.heartbeat_seconds=20')
  codes = job.wait()
  assert codes[0] == 2 and codes[1] not in (0, -9), job.text()
  assert 'cannot write metrics' in job.logs[0].read_text()
  assert time.monotonic() - began < 200
