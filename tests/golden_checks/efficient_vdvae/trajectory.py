"""A few training steps of the reference, through our train step."""

from collections.abc import Mapping
import functools
import math
import re
from typing import Any

import jax
import numpy as np
import optax

from configs.systems import efficient_vdvae as system
from hvae_tpu.importers import tables
from hvae_tpu.training import optimizers
from hvae_tpu.training.state import TrainState
from hvae_tpu.training.step import make_train_step
from tests.golden_checks.efficient_vdvae import networks, rates
from tests.golden_checks.efficient_vdvae.networks import Cases
from tests.support import golden_files
from tests.support.golden_files import EXACT, Golden, Tolerance, compare
from tests.support.tracing import constant, noise

METRICS = Tolerance(2e-5, 1e-6)
FINAL = Tolerance(0, 2e-5)
TOLERANCES = {
  **dict.fromkeys(('skipped', 'skip_counter', 'state_step'), EXACT),
  **dict.fromkeys(('lr', 'beta'), Tolerance(1e-6, 1e-12)),
}


PARTS = ('l2_mask', 'final_param', 'final_ema')


def trajectory_cases(golden: Golden) -> Cases:
  names, cases = golden.names_under('output'), {}
  if any(re.fullmatch(r'batch\d+', name) for name in golden.names_under('input')):
    cases['inputs'] = functools.partial(_check_inputs, golden)
  if 'l2_mask' in names:
    cases['l2_mask'] = functools.partial(_check_mask, golden)
  if set(names) - set(PARTS):
    cases['metrics'] = functools.partial(_check_metrics, golden)
  for name in ('param', 'ema'):
    if f'final_{name}' in names:
      cases[f'final_{name}'] = functools.partial(_check_final, golden, name)
  return cases


def _optimizer(config: Mapping[str, Any]):
  c, loss = config['optimizer'], config['loss']
  fields = dict(
    name=rates.NAMES[c['type']],
    schedule=c['learning_rate_scheme'],
    learning_rate=c['learning_rate'],
    warmup_steps=int(c['warmup_steps']),
    decay_start=c['decay_start'],
    decay_steps=c['decay_steps'],
    decay_rate=c['decay_rate'],
    min_learning_rate=c['min_learning_rate'],
    b1=c['beta1'],
    b2=c['beta2'],
    eps=c['epsilon'],
    clip_norm=c['gradient_clip_norm_value'] if c['clip_gradient_norm'] else 0.0,
    weight_decay=loss['l2_weight'] if loss['use_weight_decay'] else 0.0,
    weight_decay_exclude=system.base().optimizer.weight_decay_exclude,
  )
  return optimizers.create(rates.section(**fields), config['train']['total_train_steps'])


@functools.cache
def _run(golden: Golden) -> tuple[dict[str, Any], TrainState]:
  """Metrics of every call, and the last state; the latent variables' noise is zero."""
  config = golden.config
  model = networks.model_of(config)
  params = networks.read_params(golden, model)
  tx, learning_rate = _optimizer(config)
  skip = config['optimizer']
  step = make_train_step(
    model,
    tx,
    learning_rate,
    seed=0,
    clock='applied',
    ema_decay=config['train']['ema_decay'],
    skip_threshold=skip['gradient_skip_threshold'] if skip['gradient_skip'] else math.inf,
  )
  zero = np.zeros((), np.int32)
  state = TrainState(zero, zero, zero, params, params, {}, tx.init(params))
  jitted, metrics, applied = golden_files.quick_jit(step), [], []
  with noise(normal=constant(0.0)):
    for index in golden['input/batch_sequence']:
      state, results = jitted(state, {'image': golden[f'input/batch{index}_uint8']})
      metrics.append(results)
      applied.append(state.step - state.skipped)
  get = lambda name: np.array([m[name] for m in metrics])
  return {
    'loss': get('loss'),
    'grad_norm': get('grad_norm'),
    'lr': get('learning_rate'),
    'beta': get('beta'),
    'skipped': np.diff([0, *get('skipped')]),
    'skip_counter': get('skipped'),
    'state_step': np.array(applied),
    'metric_avg_recon_loss': get('nll_bpd'),
    'metric_kl_div': get('weighted_kl_bpd'),
  }, state


def _check_inputs(golden: Golden) -> None:
  model = networks.model_of(golden.config)
  for name in golden.names_under('input'):
    if re.fullmatch(r'batch\d+', name):
      scaled = {'image': model.scale_target(golden[f'input/{name}_uint8'])}
      compare(scaled, {'image': golden[f'input/{name}']}, lambda _: EXACT)


def _check_metrics(golden: Golden) -> None:
  stored = golden.under('output')
  expected = {key: value for key, value in stored.items() if key.split('/')[0] not in PARTS}
  compare(_run(golden)[0], expected, lambda key: TOLERANCES.get(key, METRICS))


def _check_final(golden: Golden, name: str) -> None:
  state = _run(golden)[1]
  tree = state.params if name == 'param' else state.ema_params
  entries = networks.entries(networks.model_of(golden.config))
  results = tables.export_params(entries, tree)
  compare(results, golden.under(f'output/final_{name}'), lambda _: FINAL)


def _check_mask(golden: Golden) -> None:
  """Checks which parameters shrink when the gradient is zero."""
  model = networks.model_of(golden.config)
  ones = jax.tree.map(np.ones_like, networks.read_params(golden, model))
  exclude = system.base().optimizer.weight_decay_exclude
  tx, _ = optimizers.create(rates.section(weight_decay=1.0, weight_decay_exclude=exclude), 0)
  shrink = lambda params: tx.update(optax.tree.zeros_like(params), tx.init(params), params)[0]
  updates = golden_files.quick_jit(shrink)(ones)
  results = tables.export_params(networks.entries(model), updates)
  decayed = {key: np.uint8(update.all()) for key, update in results.items()}
  assert all(update.all() or not update.any() for update in results.values())
  compare(decayed, golden.under('output/l2_mask'), lambda _: EXACT)
