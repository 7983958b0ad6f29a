"""A few training steps of the references, through our train step."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import ml_collections
import numpy as np

from configs.systems import nvae as system
from hvae_tpu.importers import tables
from hvae_tpu.models.nvae import NVAE
from hvae_tpu.training import optimizers
from hvae_tpu.training.state import TrainState
from hvae_tpu.training.step import make_train_step
from tests.golden_checks.nvae import computed, networks
from tests.golden_checks.nvae.networks import SCHEDULE, Cases
from tests.support import golden_files
from tests.support.golden_files import Golden, Tolerance, compare
from tests.support.tracing import constant, noise

EARLY, LATE = Tolerance(1e-4, 1e-6), Tolerance(1e-3, 1e-5)
METRICS = {  # of a file -> ours
  'loss': 'loss',
  'recon': 'nll',
  'balanced_kl': 'balanced_kl',
  'kl_balanced': 'balanced_kl',
  'kl_coeff': 'beta',
  'wdn_coeff': 'norm_weight',
  'lr': 'learning_rate',
  'norm_loss': 'spectral_norm',
  'bn_loss': 'batch_norm_scale',
  'grad_norm': 'grad_norm',
  'skipped': 'skipped',
}


def trajectory_cases(golden: Golden) -> Cases:
  """Returns the checks of every list of losses, whose name ends with the noise."""
  cases: Cases = {}
  for key in golden.keys:
    name, _, rest = key.partition('/')
    if name.startswith('traj') and rest == 'loss':
      eps = float(name.partition('eps')[2] or 0)
      cases[f'{name}_metrics'] = functools.partial(_check_metrics, golden, name, eps)
      if golden.has(f'{name}/final_param/*'):
        cases[f'{name}_final'] = functools.partial(_check_final, golden, name, eps)
  return cases


def _model(config: Mapping[str, Any]) -> NVAE:
  c, model = config['_traj'], networks.model_of(config)
  if networks.is_seed(config):
    # All steps are of one epoch, whose weight is the smallest of a schedule that hardly rises.
    weight = c['kl_step'] / config['_loss']['warmup_epochs']
    return dataclasses.replace(model, kl_schedule='steps', kl_min=weight, kl_anneal_steps=1e9)
  total = c['num_total_iter']
  return dataclasses.replace(
    model,
    kl_anneal_steps=c['kl_anneal_portion'] * total,
    kl_const_steps=c['kl_const_portion'] * total,
    kl_min=c['kl_const_coeff'],
    weight_decay_norm=c['weight_decay_norm'],
    weight_decay_norm_init=c['weight_decay_norm_init'] if c['weight_decay_norm_anneal'] else 0.0,
  )


def _optimizer(config: Mapping[str, Any]):
  c = config['_traj']
  section = ml_collections.ConfigDict(system.base().optimizer)
  # One epoch is longer than the trajectory: the rate stays where its warm-up ends.
  section.schedule, section.steps_per_epoch = 'cosine_epochs', 10**6
  section.update(
    learning_rate=c.get('learning_rate', c.get('lr')),
    warmup_steps=c.get('warmup_iters', 0),
    weight_decay=c['weight_decay'],
    eps=c['eps'],
  )
  return optimizers.create(section, c['steps'])


@functools.cache
def _compiled(golden: Golden):
  """Returns (state, batch, eps) -> (state, metrics), and the first state."""
  model = _model(networks.config_of(golden))
  params, model_state = networks.read(golden)
  tx, learning_rate = _optimizer(golden.config)
  step = make_train_step(model, tx, learning_rate, seed=0)

  def with_noise(state, batch, eps):
    with noise(normal=constant(eps)):
      return step(state, batch)

  zero = np.zeros((), np.int32)
  state = TrainState(zero, zero, zero, params, None, model_state, tx.init(params))
  return golden_files.quick_jit(with_noise), state


@functools.cache
def _run(golden: Golden, eps: float) -> tuple[dict[str, np.ndarray], TrainState]:
  """Metrics of every step, and the last state."""
  step, state = _compiled(golden)
  results = []
  for _ in range(golden.config['_traj']['steps']):
    state, metrics = step(state, {'image': computed.image_of(golden)}, eps)
    results.append(metrics)
  return jax.tree.map(lambda *leaves: np.stack(leaves), *results), state


def _check_metrics(golden: Golden, name: str, eps: float) -> None:
  metrics, _ = _run(golden, eps)
  stored = {k: v for k, v in golden.under(name).items() if not k.startswith('final_param')}
  results = {key: metrics[METRICS[key]] for key in stored if key in METRICS}
  if 'regularization' in stored:
    results['regularization'] = metrics['spectral_norm'] + metrics['batch_norm_scale']
  settings = ('lr', 'kl_coeff', 'wdn_coeff', 'skipped')
  tolerance = lambda rest: lambda key: SCHEDULE if key in settings else rest
  compare(
    {k: v[:3] for k, v in results.items()}, {k: v[:3] for k, v in stored.items()}, tolerance(EARLY)
  )
  compare(results, stored, tolerance(LATE))


def _check_final(golden: Golden, name: str, eps: float) -> None:
  _, state = _run(golden, eps)
  entries = networks.entries(golden)
  statistics = {'batch_stats': state.model_state['batch_stats']}
  results = tables.export_params(entries['params'], state.params)
  results |= tables.export_params(entries['model_state'], statistics)
  for key, value in golden.under(f'{name}/final_param').items():
    change = np.abs(value - golden[f'param/{key}'])
    error = np.abs(results[key] - value)
    assert (error <= 1e-4 + 0.02 * change).all(), f'{key}: off by {error.max():.3g}'
