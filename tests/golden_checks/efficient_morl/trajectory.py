"""A few training steps of the reference through our train step, its rates, its multiplier."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from configs.systems import efficient_morl as system
from hvae_tpu.models.efficient_morl import EfficientMORL, objective
from hvae_tpu.training import optimizers
from hvae_tpu.training.state import TrainState
from hvae_tpu.training.step import make_train_step
from tests.golden_checks.efficient_morl import networks
from tests.golden_checks.efficient_morl.networks import Cases
from tests.support import golden_files
from tests.support.golden_files import EXACT, Golden, Tolerance, compare
from tests.support.tracing import noise

RATE = Tolerance(1e-6, 0)
FINAL = Tolerance(0, 5e-6)
TOLERANCES = {
  'lr': RATE,
  'grad_norm': Tolerance(1e-4, 0),
  'kl': Tolerance(2e-5, 0),
  'refinement_iters': EXACT,
}
LOSS = Tolerance(2e-5, 1e-3)


def trajectory_cases(golden: Golden) -> Cases:
  cases: Cases = {}
  for mode in golden.names_under('output'):
    if mode.startswith('eps'):
      if set(golden.names_under(f'output/{mode}')) != {'final'}:
        cases[mode] = functools.partial(_check_metrics, golden, mode)
      if golden.has(f'output/{mode}/final/*'):
        cases[f'{mode}-final'] = functools.partial(_check_final, golden, mode)
  if 'output/lr_table_lr' in golden:
    cases['lr_table'] = functools.partial(_check_rates, golden)
  if golden.has('output/geco_*'):
    cases['geco'] = functools.partial(_check_geco, golden)
  return cases


def _model(golden: Golden) -> EfficientMORL:
  c = golden.config['training']
  return networks.model_of(
    golden.config['Net'],
    refinement_curriculum=tuple(map(tuple, c['refinement_curriculum'])),
    geco_target=c['geco_reconstruction_target'],
    geco_ema_alpha=c['geco_ema_alpha'],
    geco_beta_stepsize=c['geco_beta_stepsize'],
    geco_step_size_acceleration=float(c['geco_step_size_acceleration']),
    kl_beta=float(c['kl_beta']),
  )


def _optimizer(**fields: Any) -> Any:
  section = system.base().optimizer
  section.update(fields)
  return optimizers.create(section, num_steps=0)


@functools.cache
def _compiled(model: EfficientMORL, *settings: Any) -> tuple[Any, Any]:
  """Returns the jitted step of (state, batch, draw), and the optimizer of these settings."""
  tx, rate = _optimizer(**dict(settings))
  step = make_train_step(model, tx, rate, seed=0)

  def run(state, batch, draw):
    with noise(normal=networks.repeated(draw)):
      return step(state, batch)

  return golden_files.quick_jit(run), tx


@functools.cache
def _run(golden: Golden, mode: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """Metrics of every step, and the last weights by the reference's names."""
  model, c = _model(golden), golden.config['training']
  names = dict(
    learning_rate='lr', warmup_steps='warmup', decay_steps='decay_scale', clip_norm='clip'
  )
  run, tx = _compiled(model, *((ours, c[theirs]) for ours, theirs in names.items()))
  params = networks.read_params(golden.beside(golden.config['initial_params']), model)
  file, key = golden.config['input'].split()
  batch = {'image': networks.images(golden.beside(file), key)}
  draw = networks.pattern(mode, len(batch['image']) * model.num_slots * model.zdim)
  zero = np.zeros((), np.int32)
  geco = {name: np.asarray(v) for name, v in objective.initial_geco()._asdict().items()}
  state = TrainState(zero, zero, zero, params, None, {'geco': geco}, tx.init(params))
  metrics = []
  for _ in range(c['iters']):
    state, results = run(state, batch, draw)
    metrics.append(results)
  get = lambda name: np.array([m[name] for m in metrics])
  return {
    'total_loss': get('loss'),
    'nll': get('nll'),
    'kl': get('kl'),
    'grad_norm': get('grad_norm'),
    'lr': get('learning_rate'),
    'C_ema': get('geco_c_ema'),
    'beta': get('geco_beta'),
    'refinement_iters': get('refinements'),
  }, networks.named_gradients(model, state.params)


def _check_metrics(golden: Golden, mode: str) -> None:
  stored = golden.under(f'output/{mode}')
  expected = {key: value for key, value in stored.items() if not key.startswith('final/')}
  compare(_run(golden, mode)[0], expected, lambda key: TOLERANCES.get(key, LOSS))


def _check_final(golden: Golden, mode: str) -> None:
  compare(_run(golden, mode)[1], golden.under(f'output/{mode}/final'), lambda _: FINAL)


def _check_rates(golden: Golden) -> None:
  """Checks the rates of the published configurations, which are the defaults."""
  _, rate = _optimizer()
  results = golden_files.quick_jit(rate)(golden['input/lr_table_step'])
  compare({'': results}, {'': golden['output/lr_table_lr']}, lambda _: RATE)


def _check_geco(golden: Golden) -> None:
  """Settings of the file's description; the first value begins the average.

  The constraint is as it stands in the loss, with its weight.
  """
  model = EfficientMORL(
    image_size=1,
    geco_target=-100 / 3,
    geco_ema_alpha=0.99,
    geco_step_size_acceleration=5.0,
    geco_beta_stepsize=2e-3,
    geco_warm_start=0,
  )
  geco, history = objective.initial_geco(), []
  for step, nll in enumerate(golden['input/geco_nll']):
    zero = jnp.zeros(1)
    before = -objective.iteration_loss(zero, zero, geco, 1.0, jnp.ones((), bool))
    geco = objective.next_geco(model, geco, jnp.asarray(nll), jnp.int32(step))
    history.append((geco.c_ema, geco.beta, before))
  names = ('geco_C_ema', 'geco_beta', 'geco_constraint_before')
  results = dict(zip(names, np.array(history).T, strict=True))
  compare(results, golden_files.select(golden, results), lambda _: networks.ARRAY)
