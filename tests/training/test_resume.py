"""Processes that are stopped and started again: the result equals a run in one piece.

One chain of starts serves all tests: each start resumes the one before.
"""

import functools
import os
import pathlib
import signal
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest

from hvae_tpu.devices import sharding
from hvae_tpu.runs.checkpoints import Checkpoints
from tests.support import moving_squares

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = (
  '--config=configs/demo_mnist.py:vdvae,debug',
  '--config.model.enc_blocks=32d32,1x1',
  '--config.model.dec_blocks=1x1,32m1',
  '--config.train.num_steps=40',
  '--config.train.save_every=10',
  '--config.train.log_every=1',
  '--config.evals.elbo.every=0',
  '--config.evals.pictures.every=0',
)


VIDEO_FLAGS = (
  '--config=configs/demo_moving_mnist.py:cwvae,debug',
  '--config.train.num_steps=12',
  '--config.train.save_every=4',
  '--config.train.log_every=1',
  '--config.evals.elbo.every=0',
  '--config.evals.open_loop.every=4',
)


class Start(NamedTuple):
  code: int
  text: str
  misses: int | None
  steps: list[int]


def start_of(
  run: tuple[str, ...],
  data_root: pathlib.Path,
  folder: pathlib.Path,
  name: str,
  signum: int = 0,
  at: int = 0,
) -> Start:
  """Starts a process that trains in `folder`/`name` and receives a signal at a step."""
  process = subprocess.run(
    [sys.executable, '-m', 'tests.support.signalled', str(signum), str(at), *run]
    + [f'--workdir={folder / name}'],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu', 'HVAE_DATA': str(data_root)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=240,
  )
  store = Checkpoints(folder / name, read_only=True)
  steps = store.steps
  store.close()
  _, marker, misses = process.stdout.rpartition('cache misses: ')
  return Start(process.returncode, process.stdout, int(misses) if marker else None, steps)


@pytest.fixture(scope='module')
def chain(data_root, tmp_path_factory):
  """Starts by name, and the folder of the work directories `whole` and `pieces`."""
  folder = tmp_path_factory.mktemp('runs')

  start = functools.partial(start_of, FLAGS, data_root, folder)
  starts = {
    'whole': start('whole'),
    'interrupted': start('pieces', signal.SIGINT, 7),
    'terminated': start('pieces', signal.SIGTERM, 13),
    'killed': start('pieces', signal.SIGKILL, 23),
    'finished': start('pieces'),
  }
  return starts, folder


def test_interrupt_saves_and_says_so(chain):
  start = chain[0]['interrupted']
  assert (start.code, start.steps) == (130, [7]), start.text
  assert 'saved step 7' in start.text and 'stopping after this step' in start.text
  assert 'Traceback' not in start.text


def test_terminate_saves_and_ends_well(chain):
  start = chain[0]['terminated']
  assert (start.code, start.steps[-1]) == (0, 13), start.text
  assert 'resumed at step 7' in start.text and 'saved step 13' in start.text


def test_kill_leaves_whole_checkpoints(chain):
  start = chain[0]['killed']
  assert start.code == -signal.SIGKILL, start.text
  assert start.steps[-1] in (13, 20)  # the save of step 20 may not have ended


def test_stopped_runs_end_as_one_in_one_piece(chain):
  starts, folder = chain
  assert starts['whole'].code == starts['finished'].code == 0, starts['finished'].text
  assert starts['whole'].steps[-1] == starts['finished'].steps[-1] == 40
  for field in ('params', 'ema_params'):
    same_arrays(folder, 40, field)


def same_arrays(folder: pathlib.Path, step: int, field: str) -> None:
  """Checks that the runs `whole` and `pieces` have the same arrays at this step."""
  mesh, fields = sharding.make_mesh(8, 1), []
  for name in ('whole', 'pieces'):
    store = Checkpoints(folder / name, read_only=True)
    fields.append(store.restore_named(step, field, mesh))
    store.close()
  assert fields[0] and set(fields[0]) == set(fields[1])
  for name, array in fields[0].items():
    np.testing.assert_array_equal(fields[1][name], array, err_msg=f'{field}/{name}')


def test_second_starts_compile_nothing(chain):
  starts = chain[0]
  assert starts['interrupted'].misses == 0  # the same start as `whole`
  assert starts['finished'].misses == 0  # resumed, as `terminated` was


def test_a_killed_run_of_videos_ends_as_one_in_one_piece(tmp_path):
  """Compares weights, and the films that were predicted during training."""
  moving_squares.write(tmp_path)
  start = functools.partial(start_of, VIDEO_FLAGS, tmp_path, tmp_path)
  starts = [start('whole'), start('pieces', signal.SIGKILL, 11), start('pieces')]
  assert [s.code for s in starts] == [0, -signal.SIGKILL, 0], starts[-1].text
  assert starts[1].steps[-1] in (4, 8), starts[1].text  # the save of step 8 may not have ended
  assert starts[-1].steps[-1] == 12
  same_arrays(tmp_path, 12, 'params')
  for step in (4, 8, 12):
    film = pathlib.Path('train', 'open_loop', f'films-{step}.gif')
    whole = (tmp_path / 'whole' / film).read_bytes()
    assert whole == (tmp_path / 'pieces' / film).read_bytes()
