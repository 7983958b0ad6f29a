"""The interface of models: its described names, and a model of nothing but two methods."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvae_tpu import evals, generation, models
from hvae_tpu.errors import UserError
from hvae_tpu.models import protocol
from hvae_tpu.runs.checkpoints import Checkpoints

CONFIG = """
from configs.systems import trainer

def get_config():
  config = trainer.base()
  config.name = 'pixels'
  config.data.name = 'demo_mnist'
  config.model = dict(name='pixels', start=0.5)
  config.optimizer.update(learning_rate=0.1, b2=0.9)
  return config
"""


@dataclasses.dataclass(frozen=True)
class Pixels:
  """One probability for each pixel of 32 x 32, fitted by the squared error."""

  start: float = 0.5

  def init(self, rng, batch):
    return {'shade': jnp.full(batch['image'].shape[1:], self.start)}, {}

  def loss(self, params, state, batch, *, rng, step, train):
    error = jnp.square(batch['image'] / 255 - params['shade']).sum((1, 2, 3))
    return error.mean(), (state, {'error': error})


def test_a_model_of_two_methods_trains_resumes_and_evaluates(
  command, monkeypatch, tmp_path, data_root
):
  """Uses the trainer's defaults: unsupported evaluations are left out, with a message."""
  monkeypatch.setitem(models.MODELS, 'pixels', Pixels)
  file, workdir = tmp_path / 'pixels.py', tmp_path / 'run'
  file.write_text(CONFIG)
  common = f'--config={file}', f'--workdir={workdir}'
  code, out, err = command(*common, '--config.train.num_steps=4')
  assert code == 0, err
  said = (
    "evaluation 'pictures' is left out: it needs sample(), encode(), decode(), level_names, which "
    'Pixels lacks'
  )
  assert said in out and 'evaluation elbo at step 4' not in out and 'saved step 4' in out
  code, out, err = command(*common, '--config.train.num_steps=8')
  assert code == 0 and 'resumed at step 4' in out and 'saved step 8' in out, err

  code, out, err = command(*common, '--mode=eval')
  assert code == 0 and 'elbo/error' in out, err
  results = json.loads((workdir / 'eval' / 'test-8-ema.json').read_text())['results']
  assert set(results) == {'elbo/error', 'elbo/num_examples'}
  stored = Checkpoints(workdir, read_only=True).meta(8)['metrics']
  assert 0 < stored['elbo/error'] < 1000

  for arguments, message in {
    ('--config.evals.iwae.every=4', '--config.train.num_steps=12'): (
      "evaluation 'iwae' needs log_weights(), num_dims, which Pixels lacks; give the model what "
      'models/protocol.py says or turn it off with config.evals.iwae.every=0'
    ),
    ('--mode=sample',): '--mode=sample needs sample(), encode(), decode(), level_names, which',
    ('--mode=eval', '--checkpoint=best'): 'use --checkpoint=latest',
    ('--config.train.progress_metrics=("bpd",)', '--config.train.num_steps=12'): (
      'progress_metrics names bpd, but this model has the metrics clock, error, grad_norm'
    ),
  }.items():
    code, _, err = command(*common, *arguments)
    assert code == 2 and message in err and 'Traceback' not in err, err


def test_every_need_is_described():
  needs = [module.NEEDS for module in evals.EVALS.values()]
  for names in (*needs, generation.NEEDS):
    protocol.missing(object(), names)
  with pytest.raises(ValueError, match='segmnt must be described in hvae_tpu.models.protocol'):
    protocol.missing(object(), ('segmnt',))


def test_what_a_model_lacks_is_told_with_the_remedy():
  protocol.require(Pixels(), ('init', 'loss'), 'training')
  message = (
    r'config.x=2 needs num_dims, refresh\(\), which Pixels lacks; give the model what '
    r'models/protocol.py says or set config.x=0$'
  )
  with pytest.raises(UserError, match=message):
    protocol.require(Pixels(), ('num_dims', 'loss', 'refresh'), 'config.x=2', 'set config.x=0')


def test_metrics_of_a_model_without_levels_are_per_example():
  params, _ = Pixels().init(jax.random.key(0), {'image': np.zeros((2, 4, 4, 1), np.uint8)})
  assert protocol.level_names(Pixels()) == () and params['shade'].shape == (4, 4, 1)
