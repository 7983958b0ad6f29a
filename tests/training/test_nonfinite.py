"""Losses that are not finite: their first intermediate, the dump, and the replay."""

import json
import os
import pathlib
import subprocess
import sys

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from hvae_tpu import data
from hvae_tpu.data.records import Records
from hvae_tpu.training import nonfinite
from hvae_tpu.training.step import step_key

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = (
  '--config=configs/demo_mnist.py:vdvae,debug',
  '--config.model.enc_blocks=32d32,1x1',
  '--config.model.dec_blocks=1x1,32m1',
  '--config.optimizer.warmup_steps=0',
  '--config.optimizer.clip_norm=0',
  '--config.optimizer.learning_rate=3e4',  # the first update makes the second loss overflow
  '--config.train.max_skipped_in_row=5',
  '--config.evals.elbo.every=0',
  '--config.evals.pictures.every=0',
)


def test_first_leaf_by_name():
  tree = {'a': jnp.ones(3), 'b': {'c': jnp.array([1.0, jnp.inf]), 'd': jnp.array(jnp.nan)}}
  assert nonfinite.first_leaf(tree) == 'b/c'
  assert nonfinite.first_leaf({'a': jnp.ones(3), 'n': jnp.arange(2)}) is None


def test_first_intermediate_in_a_loop():
  def body(carry, x):
    return carry + jnp.log(x), carry

  def function(xs):
    total, _ = lax.scan(jax.jit(body), 0.0, xs)
    return total * 2

  assert nonfinite.first_intermediate(function, jnp.array([1.0, 2.0, 3.0])) is None
  description = nonfinite.first_intermediate(function, jnp.array([1.0, -1.0, 3.0]))
  assert (
    description.startswith('log in ') and '[1]' in description and '1 of 1 values' in description
  )


def test_the_backward_pass_is_searched_too():
  """Takes the gradient of sqrt at 0, where the forward pass is finite."""
  description = nonfinite.first_intermediate(jax.grad(lambda x: jnp.sqrt(x) * 0), jnp.float32(0))
  assert description is not None


@pytest.fixture(scope='module')
def broken_run(data_root, tmp_path_factory):
  """A run that overflows at its second step, and its replay."""
  workdir = tmp_path_factory.mktemp('broken') / 'run'

  def start(*more: str):
    return subprocess.run(
      [sys.executable, '-m', 'hvae_tpu.main', *FLAGS, f'--workdir={workdir}', *more],
      cwd=ROOT,
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'HVAE_DATA': str(data_root)},
      capture_output=True,
      text=True,
      timeout=240,
    )

  return workdir, start(), start('--mode=replay')


@pytest.mark.slow
def test_a_run_that_only_drops_stops_and_is_saved(broken_run):
  workdir, trained, _ = broken_run
  assert trained.returncode == 2 and 'Traceback' not in trained.stderr
  assert 'config.train.skip_threshold' in trained.stderr and 'were skipped' in trained.stderr
  assert any(path.name.isdigit() for path in (workdir / 'checkpoints').iterdir())


@pytest.mark.slow
def test_the_bundle_says_which_step_it_was(broken_run, data_root):
  workdir, trained, _ = broken_run
  (folder,) = workdir.glob('nonfinite-*')
  assert str(folder) in trained.stdout
  bundle = json.loads((folder / 'bundle.json').read_text())
  step = bundle['step']
  assert step == int(folder.name.rpartition('-')[2]) >= 1
  assert bundle['key'] == jax.random.key_data(step_key(0, step)).tolist()
  dataset = data.open_dataset('demo_mnist', data_root)
  batches = data.train_batches(dataset, 'train', batch_size=8, seed=0, start_step=step)
  labels = next(batches)['label']
  batches.close()
  split = dataset.view('train')['split']
  records = Records(dataset, split).read(np.array(bundle['batch_indices']))
  assert records['label'].tolist() == labels.tolist()
  assert bundle['first_nonfinite_gradient'] is not None


@pytest.mark.slow
def test_replay_names_the_first_intermediate(broken_run):
  _, _, replayed = broken_run
  assert replayed.returncode == 0, replayed.stdout + replayed.stderr
  last = replayed.stdout.strip().splitlines()[-1]
  assert last.startswith('first non-finite intermediate: ') and 'are not finite' in last
