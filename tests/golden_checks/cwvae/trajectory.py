"""A few training steps of the references, through our train step."""

from collections.abc import Iterator, Mapping
import functools
from typing import Any

import ml_collections
import numpy as np
import optax

from hvae_tpu.importers import tables
from hvae_tpu.models.cwvae import CWVAE
from hvae_tpu.training import optimizers
from hvae_tpu.training.state import TrainState
from hvae_tpu.training.step import make_train_step
from tests.golden_checks.cwvae import networks
from tests.golden_checks.cwvae.networks import Cases
from tests.support import golden_files
from tests.support.golden_files import EXACT, Golden, Tolerance, compare
from tests.support.tracing import constant, noise

TOLERANCES = {
  'loss': Tolerance(1e-5, 0),
  'nll_term': Tolerance(1e-5, 0),
  'kl_term': networks.KL,
  'grad_norm': networks.GRAD_NORM,
  'clip_scale': networks.GRAD_NORM,
  'lr': Tolerance(1e-6, 0),
  'skipped': EXACT,
}
MOMENTS = {'mu': networks.GRADIENT, 'nu': Tolerance(4e-3, 0, of_max=4e-5)}


def final(rate: float) -> Tolerance:
  """Returns the tolerance of parameters after six steps at this learning rate."""
  return Tolerance(0, 5e-5 if rate > 3e-4 else 2e-5)


def trajectory_cases(golden: Golden) -> Cases:
  finals = [name for name in golden.names_under('output') if name.startswith('final_')]
  cases: Cases = {name: functools.partial(_check_final, golden, name) for name in finals}
  if set(golden.names_under('output')) - set(finals):
    cases['metrics'] = functools.partial(_check_metrics, golden)
  return cases


def steps(
  model: CWVAE, params: Any, video: Any, eps: float, optimizer: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], TrainState]]:
  """Endless (metrics, state) after every step, always on the same batch with the same noise."""
  section = dict(schedule='constant', warmup_steps=0, b1=0.9, b2=0.999, eps=1e-4) | optimizer
  tx, rate = optimizers.create(ml_collections.ConfigDict(section), num_steps=1)
  jitted = golden_files.quick_jit(make_train_step(model, tx, rate, seed=0))
  zero = np.zeros((), np.int32)
  state = TrainState(zero, zero, zero, params, None, {}, tx.init(params))
  with noise(normal=constant(eps)):
    while True:
      state, metrics = jitted(state, {'video': video})
      yield metrics, state


@functools.cache
def _run(golden: Golden) -> tuple[list[dict[str, Any]], TrainState]:
  """Metrics before each step and after the last, and the state then."""
  c = golden.config
  model = networks.model_of(c)
  optimizer = dict(
    name='adam', learning_rate=c['lr'], clip_norm=c['clip_grad_norm_by'], **c['adam']
  )
  stream = steps(
    model, networks.read_params(golden, model), golden['input/obs_uint8'], c['eps_draw'], optimizer
  )
  results = [next(stream) for _ in range(c['steps'] + 1)]
  return [metrics for metrics, _ in results], results[-2][1]


def _check_metrics(golden: Golden) -> None:
  metrics, _ = _run(golden)
  get = lambda name: np.array([m[name] for m in metrics])
  norms = get('grad_norm')[:-1]
  results = {
    'loss': get('loss'),
    'nll_term': get('nll_per_frame')[:-1],
    'kl_term': get('weighted_kl_per_frame')[:-1],
    'grad_norm': norms,
    'clip_scale': np.minimum(golden.config['clip_grad_norm_by'] / norms, 1),
    'lr': get('learning_rate')[:-1],
    'skipped': np.diff([0, *get('skipped')])[:-1],
  }
  stored = golden.under('output')
  expected = {key: value for key, value in stored.items() if not key.startswith('final_')}
  compare(results, expected, TOLERANCES.__getitem__)


def _check_final(golden: Golden, name: str) -> None:
  _, state = _run(golden)
  moment = name.removeprefix('final_adam_')
  tree = state.params if name == 'final_param' else optax.tree.get(state.opt_state, moment)
  results = tables.export_params(networks.entries(networks.model_of(golden.config)), tree)
  tolerance = MOMENTS.get(moment) or final(golden.config['lr'])
  compare(results, golden.under(f'output/{name}'), lambda _: tolerance)
