"""The command line: its life cycle, and one clear sentence for every mistake."""

import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import hvae_tpu

DEBUG = 'configs/demo_mnist.py:vdvae,debug'
TINY = (
  f'--config={DEBUG}',
  '--config.model.enc_blocks=32d32,1x1',
  '--config.model.dec_blocks=1x1,32m1',
  '--config.train.num_steps=4',
  '--config.train.log_every=2',
  '--config.evals.elbo.every=0',
  '--config.evals.pictures.every=0',
)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  return tmp_path_factory.mktemp('main') / 'run'


def test_life_of_a_run(command, workdir):
  where = f'--workdir={workdir}'
  code, out, err = command(*TINY, where)
  assert code == 0, err
  assert 'step 4/4' in out and 'saved step 4' in out
  code, out, _ = command(*TINY, where)
  assert code == 0 and 'is finished: step 4' in out

  code, out, err = command(*TINY, where, '--mode=eval')
  assert code == 0, err
  results = json.loads((workdir / 'eval' / 'test-4-ema.json').read_text())['results']
  assert results['elbo/num_examples'] == 250
  assert 0 < results['elbo/neg_elbo'] < 1000 and results['bernoulli_baseline/nll'] > 0

  code, out, err = command(*TINY, where, '--mode=sample')
  assert code == 0, err
  assert (workdir / 'sample' / 'samples-4-ema.png').exists()

  model, params, state, config = hvae_tpu.load(workdir)
  assert config.model.dec_blocks == '1x1,32m1'
  pictures = model.sample(params, state, jax.random.key(0), 2)
  assert pictures.shape == (2, 32, 32, 1) and pictures.dtype == np.uint8

  for wrong in (
    ('--mode=eval', '--checkpoint=17'),
    ('--mode=sample', '--config.sample.temperature_per_level=(1.0,)'),
    ('--config.model.zdim=3',),
  ):
    code, _, err = command(*TINY, where, *wrong)
    assert code == 2 and err.startswith('error: ') and 'Traceback' not in err, wrong
    word = {'17': '--checkpoint=17', ',)': 'temperature_per_level has 1', '=3': 'config.model.zdim'}
    assert word[wrong[-1][-2:]] in err, err


@pytest.mark.parametrize(
  ('arguments', 'parts'),
  [
    ([], ['--config=configs/<data set>.py is missing']),
    (['--config=configs/none.py'], ["'configs/none.py'", '--config']),
    ([f'--config={DEBUG}', '--mode=dream'], ['--mode=dream must be one of train, eval']),
    ([f'--config={DEBUG}', '--config.train.nm_steps=3'], ['config.train.nm_steps', 'num_steps?']),
    ([f'--config={DEBUG}', '--config.trian.num_steps=3'], ['config.trian']),
    ([f'--config={DEBUG}', '--config.train.num_steps=1.5'], ['config.train.num_steps=1.5']),
    ([f'--config={DEBUG}', '--config.model.sample_snap=maybe'], ['config.model.sample_snap=maybe']),
    (['--config=configs/cifar10.py:cwvae'], ["configs/cifar10.py has no 'cwvae'", 'vdvae,paper']),
    (['--config=configs/cifar10.py:vdvae,c9'], ["no 'vdvae,c9'", 'debug']),
    ([f'--config={DEBUG}', 'surplus'], ["'surplus'"]),
    ([f'--config={DEBUG}', '--config.train.precision=low'], ["config.train.precision='low'"]),
    ([f'--config={DEBUG}', '--config.train.batch_size=12'], ['config.train.batch_size=12', '8 or']),
    ([f'--config={DEBUG}', '--config.model.enc_blocks=32y1'], ['config.model.enc_blocks', '32y1']),
    ([f'--config={DEBUG}', '--config.data.train_split=odd'], ["'odd'", 'train, valid, test']),
    (
      [f'--config={DEBUG}', '--config.train.batch_size=8000'],
      ['4500 examples', 'train.batch_size=8000'],
    ),
    ([f'--config={DEBUG}', '--config.model.dtype=auto'], ["config.model.dtype='auto'", 'bfloat16']),
    ([f'--config={DEBUG}', '--config.model.width=3'], ['bottleneck_multiple=0.25', 'channel']),
    ([f'--config={DEBUG}', '--config.model.num_mixtures=0'], ['config.model.num_mixtures=0']),
    ([f'--config={DEBUG}', '--config.model.target_crop=16'], ['config.model.target_crop=16']),
    ([f'--config={DEBUG}', '--config.model.image_channels=2'], ['[32, 32, 1]', '[32, 32, 2]']),
    ([f'--config={DEBUG}', '--config.evals.pictures.num=9'], ['9 images', 'batch_size=8']),
    ([f'--config={DEBUG}', '--config.train.log_every=0'], ['config.train.log_every=0']),
    ([f'--config={DEBUG}', '--checkpoint=best'], ['--checkpoint=best', 'init_from']),
    (['--config=configs/cifar10.py:vdvae,debug'], ['python -m data_prep.build cifar10']),
    ([f'--config={DEBUG}', '--mode=eval'], ['config.json', 'no run']),
    ([f'--config={DEBUG}', "--config.data.fields=('video',)"], ["'video'", 'image, label']),
    (
      [f'--config={DEBUG}', "--config.data.train_transforms=('crop:16',)"],
      ['[16, 16, 1]', '[32, 32, 1]', 'centre_crop:N'],
    ),
  ],
  ids=lambda value: ' '.join(value),
)
def test_mistakes_are_told_in_a_sentence(command, tmp_path, arguments, parts):
  code, out, err = command(*arguments, f'--workdir={tmp_path / "run"}')
  assert code == 2
  assert err.startswith('error: ') and err.count('\n') == 1, err
  for part in parts:
    assert part in err
  assert not (tmp_path / 'run' / 'config.json').exists()  # the corrected command must be welcome


@pytest.mark.parametrize(
  ('error', 'expected'),
  [(RuntimeError('DEADLINE_EXCEEDED: Barrier timed out'), 75), (ValueError('no address'), 2)],
)
def test_what_may_work_when_started_again_has_its_own_exit_code(
  command, monkeypatch, error, expected
):
  def initialize(**options):
    raise error

  monkeypatch.setattr(jax.distributed, 'initialize', initialize)
  code, _, err = command(f'--config={DEBUG}', '--coordinator=auto')
  assert code == expected and f'did not find each other: {error}' in err


def test_look_alikes_are_refused_in_training_and_evaluation(command, workdir, data_root, tmp_path):
  """Gives the same data the name of another set, after the life of a run."""
  shutil.copytree(data_root / 'demo_mnist', tmp_path / 'other')
  card = json.loads((tmp_path / 'other' / 'dataset.json').read_text())
  (tmp_path / 'other' / 'dataset.json').write_text(json.dumps({**card, 'name': 'other'}))
  flags_ = ('--config.data.name=other', f'--config.data.root={tmp_path}')
  required = '--config.data.require.variant=van_den_oord'
  for mode in ('--mode=eval', '--mode=sample'):
    code, _, err = command(*TINY, *flags_, required, f'--workdir={workdir}', mode)
    assert code == 2 and "require.variant='van_den_oord'" in err, err
  code, _, err = command(*TINY, *flags_, required, f'--workdir={tmp_path / "new"}')
  assert code == 2 and "require.variant='van_den_oord'" in err, err


@pytest.mark.slow
def test_data_that_was_built_anew_does_not_resume(command, workdir, data_root, tmp_path):
  shutil.copytree(data_root / 'demo_mnist', tmp_path / 'demo_mnist')
  path = tmp_path / 'demo_mnist' / 'dataset.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), 'build_id': 'another'}))
  root_and_workdir = ('--config.data.root=' + str(tmp_path), f'--workdir={workdir}')
  more = '--config.train.num_steps=6'
  allow = '--config.train.allow_config_change=true'
  code, out, err = command(*TINY, *root_and_workdir, more, allow)
  assert code == 0, err
  path.write_text(json.dumps({**json.loads(path.read_text()), 'build_id': 'a third'}))
  code, _, err = command(*TINY, *root_and_workdir, '--config.train.num_steps=8')
  assert code == 2 and 'was trained on build another' in err, err


def test_mistakes_leave_no_traceback():
  """Starts a process, since the flag library may print, too."""
  process = subprocess.run(
    [sys.executable, '-m', 'hvae_tpu.main', '--config=configs/none.py'],
    capture_output=True,
    text=True,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    timeout=120,
  )
  assert process.returncode == 2 and 'Traceback' not in process.stdout + process.stderr
