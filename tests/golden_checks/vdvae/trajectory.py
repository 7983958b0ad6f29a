"""A few training steps of both references, through our train step."""

from collections.abc import Callable, Mapping
import functools
import math
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from hvae_tpu.importers import tables
from hvae_tpu.importers.tables import Entry
from hvae_tpu.models.vdvae import VDVAE
from hvae_tpu.training import optimizers
from hvae_tpu.training.state import TrainState
from hvae_tpu.training.step import make_train_step
from tests.golden_checks.vdvae import networks, port, release
from tests.golden_checks.vdvae.release import Cases
from tests.support import golden_files
from tests.support.golden_files import EXACT, Golden, Tolerance, compare
from tests.support.tracing import constant, noise

TRAJECTORY = Tolerance(1e-4, 0)
LEARNING_RATE = Tolerance(1e-6, 0)
COUNTS = ('skipped', 'batch_index', 'step_after')
# Moments are averages of clipped gradients, and of their squares.
MOMENTS = {'m': networks.GRADIENT, 'v': Tolerance(2e-3, 0, of_max=2e-3)}
FINAL = {'param': Tolerance(0, 5e-5), 'ema': Tolerance(0, 1e-5)}
PORT_FINAL = Tolerance(0, 1e-5)


def _optimizer(config: Mapping[str, Any]):
  """Returns the chain and the learning rate, from the references' names."""
  section = dict(
    name='adamw',
    schedule='constant',
    learning_rate=config['lr'],
    warmup_steps=int(config['warmup_iters']),
    clip_norm=config['grad_clip'],
    b1=config['adam_beta1'],
    b2=config['adam_beta2'],
    eps=config.get('eps', 1e-8),
    weight_decay=config['wd'],
  )
  return optimizers.create(ml_collections.ConfigDict(section), config['steps'])


def _steps(config: Mapping[str, Any], model: VDVAE, params: Any, images: list, **options):
  """Yields (metrics, state) after every step; `images` has the batch of each.

  The latent variables' noise is zero.
  """
  tx, learning_rate = _optimizer(config)
  threshold = config['skip_threshold']
  skip_threshold = math.inf if threshold == -1 else threshold
  step = make_train_step(model, tx, learning_rate, seed=0, skip_threshold=skip_threshold, **options)
  zero = np.zeros((), np.int32)
  ema_params = params if options.get('ema_decay') else None
  state = TrainState(zero, zero, zero, params, ema_params, {}, tx.init(params))
  jitted = golden_files.quick_jit(step)
  with noise(normal=constant(0.0)):
    for image in images:
      state, metrics = jitted(state, {'image': image})
      yield metrics, state


def _images(golden: Golden, order: Any) -> list[np.ndarray]:
  return [golden[f'input/image_uint8/{int(index)}'] for index in order]


def _skipped(metrics: list[dict[str, Any]]) -> np.ndarray:
  return np.diff([0, *(m['skipped'] for m in metrics)])


@functools.cache
def _run_release(golden: Golden) -> tuple[dict[str, Any], TrainState, list[Entry]]:
  config = golden.config
  model = networks.release_model(config)
  order = golden['output/traj/batch_index']
  assert len(order) == config['steps']
  params, images = release.read_params(golden, model), _images(golden, order)
  steps = list(_steps(config, model, params, images, ema_decay=config['ema_rate']))
  metrics = [m for m, _ in steps]
  rates = np.array([m['learning_rate'] for m in metrics])
  results = {
    'loss': np.array([m['loss'] for m in metrics]),
    'distortion': np.array([m['nll'] for m in metrics]) / model.num_dims,
    'rate': np.array([m['kl'] for m in metrics]) / model.num_dims,
    'grad_norm': np.array([m['grad_norm'] for m in metrics]),
    'skipped': _skipped(metrics),
    'batch_index': order,
    'lr_used': rates,
    # The reference logs the rate of the next step.
    'lr_logged': np.append(rates[1:], _optimizer(config)[1](len(rates))),
  }
  return results, steps[-1][1], networks.release_entries(model)


def _tolerance(key: str) -> Tolerance:
  if key in COUNTS:
    return EXACT
  return LEARNING_RATE if key.startswith('lr') else TRAJECTORY


def release_cases(golden: Golden) -> Cases:
  def check_metrics():
    compare(_run_release(golden)[0], golden.under('output/traj'), _tolerance)

  def check_final(name):
    _, state, entries = _run_release(golden)
    tree = state.params if name == 'param' else state.ema_params
    results = tables.export_params(entries, tree)
    compare(results, golden.under(f'output/final_{name}'), lambda _: FINAL[name])

  def check_adam():
    _, state, entries = _run_release(golden)
    if 'output/adam_step' in golden:
      count = optax.tree.get(state.opt_state, 'count')
      np.testing.assert_array_equal(golden['output/adam_step'], [count])
    for name, ours in (('m', 'mu'), ('v', 'nu')):
      if stored := golden.under(f'output/adam_{name}'):
        moments = tables.export_params(entries, optax.tree.get(state.opt_state, ours))
        compare(moments, stored, lambda _, name=name: MOMENTS[name])

  checks = {
    'output/traj/*': ('metrics', check_metrics),
    'output/final_param/*': ('final_param', functools.partial(check_final, 'param')),
    'output/final_ema/*': ('final_ema', functools.partial(check_final, 'ema')),
    'output/adam_*': ('adam', check_adam),
  }
  return {name: check for pattern, (name, check) in checks.items() if golden.has(pattern)}


@functools.cache
def _run_port(golden: Golden) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
  """Returns metrics, final parameters and their average.

  The average is composed here: the port takes the weights from before the update.
  """
  config = golden.config
  model = port.port_model(config)
  entries = port.port_entries(model)
  params = port.read_params(golden, model)
  metrics, counts, ema, decay = [], [], params, np.float32(config['ema_rate'])
  images = _images(golden, config['order'])
  for m, state in _steps(config, model, params, images, skip_advances_step=True):
    metrics.append(m)
    counts.append(optax.tree.get(state.opt_state, 'count'))
    if not _skipped(metrics)[-1]:
      ema = jax.tree.map(lambda e, p: e * decay + p * (1 - decay), ema, params)
    params = state.params
  to_bpd = 1 / math.log(2)
  nll, kl = (np.array([m[name] for m in metrics]) / model.num_dims for name in ('nll', 'kl'))
  results = {
    'elbo_bpd': -np.array([m['loss'] for m in metrics]) * to_bpd,
    'log_likelihood_bpd': -nll * to_bpd,
    'kl_bpd': kl * to_bpd,
    'grad_norm': np.array([m['grad_norm'] for m in metrics]),
    'skipped': _skipped(metrics),
    'lr': np.array([m['learning_rate'] for m in metrics]),
    'step_after': np.array(counts),
  }
  return results, tables.export_params(entries, params), tables.export_params(entries, ema)


def port_cases(golden: Golden) -> Cases:
  def tolerance(key):
    return port.PORT if key.endswith('_bpd') else _tolerance(key)

  def check(prefix: str, index: int, tolerance: Callable[[str], Tolerance]):
    compare(_run_port(golden)[index], golden.under(f'output/{prefix}'), tolerance)

  final = lambda _: PORT_FINAL
  checks = {
    'traj': ('metrics', functools.partial(check, 'traj', 0, tolerance)),
    'final_param': ('final_param', functools.partial(check, 'final_param', 1, final)),
    'final_ema': ('final_ema', functools.partial(check, 'final_ema', 2, final)),
  }
  return {
    name: check for prefix, (name, check) in checks.items() if golden.has(f'output/{prefix}/*')
  }
