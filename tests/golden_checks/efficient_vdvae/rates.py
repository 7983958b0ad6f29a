"""Schedules and optimizers on their own."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from hvae_tpu.models.efficient_vdvae import EfficientVDVAE, objective
from hvae_tpu.nn import distributions
from hvae_tpu.training import optimizers
from tests.golden_checks.efficient_vdvae.networks import Cases
from tests.support import golden_files
from tests.support.golden_files import Golden, Tolerance, compare

SCHEDULE = Tolerance(1e-6, 1e-12)
PARAMETERS = Tolerance(0, 2e-5)
EXCLUDED = ('bias',)


def section(**fields: Any) -> ml_collections.ConfigDict:
  """Returns an `optimizer` section with the reference's constants."""
  base = dict(name='adamax', schedule='constant', learning_rate=1.0, warmup_steps=0, clip_norm=0.0)
  base |= dict(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, weight_decay_exclude=EXCLUDED)
  base |= dict(decay_start=0, decay_steps=1, decay_rate=0.5, min_learning_rate=0.0)
  return ml_collections.ConfigDict(base | fields)


# Patterns of keys; each one shows that a file holds schedules.
SCHEDULE_KEYS = (
  ('output/lr_*',),
  ('output/beta_*',),
  ('output/gamma_*',),
  ('output/temperature_linear_*',),
)


def schedule_cases(golden: Golden) -> Cases:
  prefixes = {
    'lr_': _check_learning_rate,
    'beta_softplus_': _check_softplus,
    'beta_': _check_beta,
    'gamma_': _check_gamma,
    'temperature_linear_': _check_temperature,
  }
  cases: Cases = {}
  for name in golden.names_under('output'):
    check = next(prefixes[p] for p in prefixes if name.startswith(p))
    name = name.removesuffix('_grad')  # is checked with its value
    cases[name] = functools.partial(check, golden, name)
  return cases


def _check_learning_rate(golden: Golden, name: str) -> None:
  c = golden.config
  fields = dict(
    schedule=name.removeprefix('lr_'),
    learning_rate=c['init_lr'],
    warmup_steps=int(c['warmup_steps']),
    decay_start=c['decay_start'],
    decay_steps=c['decay_steps'],
    decay_rate=c['decay_rate'],
    min_learning_rate=c['min_lr'],
  )
  _, rate = optimizers.create(section(**fields), num_steps=0)
  results = golden_files.quick_jit(rate)(golden['input/steps'])
  compare({name: results}, {name: golden[f'output/{name}']}, lambda _: SCHEDULE)


def _check_beta(golden: Golden, name: str) -> None:
  kind, *numbers = name.removeprefix('beta_').split('_')
  fields: dict[str, Any] = dict(beta_schedule=kind, beta_min=1e-4)
  if kind == 'linear':
    fields |= dict(zip(('beta_start', 'beta_steps'), map(int, numbers), strict=True))
  else:
    c = golden.config[name]
    fields |= dict(beta_activation_step=c['activation_step'], beta_growth_rate=c['growth_rate'])
  results = objective.beta(EfficientVDVAE(**fields), golden['input/beta_steps'])
  compare({name: results}, {name: golden[f'output/{name}']}, lambda _: SCHEDULE)


def _check_gamma(golden: Golden, name: str) -> None:
  scaled, step = name.removeprefix('gamma_scaled').split('_step')
  sizes = jnp.asarray(golden['input/gamma_resolutions'], jnp.float32)

  def total(kl):
    return (objective.gamma(kl, sizes, int(step), 10, scaled == '1') * kl).sum()

  value, grad = jax.value_and_grad(total)(jnp.asarray(golden['input/gamma_kl']))
  results = {name: value, f'{name}_grad': grad}
  compare(results, golden_files.select(golden, results), lambda _: SCHEDULE)


def _check_temperature(golden: Golden, name: str) -> None:
  start, stop, levels = name.removeprefix('temperature_linear_').split('_')
  model = EfficientVDVAE(down_strides=(1,) * int(levels))
  results = model.temperature_ramp(float(start), float(stop))
  compare({name: results}, {name: golden[f'output/{name}']}, lambda _: SCHEDULE)


def _check_softplus(golden: Golden, name: str) -> None:
  beta = float(name.removeprefix('beta_softplus_'))
  function = jax.vmap(jax.value_and_grad(lambda x: distributions.softplus(x, beta)))
  value, grad = function(golden['input/softplus_x'])
  results = {name: value, f'{name}_grad': grad}
  compare(results, golden_files.select(golden, results), lambda _: SCHEDULE)


def optimizer_cases(golden: Golden) -> Cases:
  return {
    name: functools.partial(_check_optimizer, golden, name) for name in golden.names_under('output')
  }


# The reference switches decay on and off; ours has Adam with it under a name of its own.
NAMES = {'Adamax': 'adamax', 'Adam': 'adamw', 'Radam': 'radam'}


def _check_optimizer(golden: Golden, name: str) -> None:
  kind, decayed = name.split('_wd')
  c = golden.config
  fields = dict(name=NAMES[kind], b1=c['beta1'], b2=c['beta2'], eps=c['epsilon'])
  tx, _ = optimizers.create(section(**fields, weight_decay=int(decayed) * c['l2_weight']), 0)
  grads = golden.under('input/grads')
  params = _nested(golden.under('input/param'))
  state, history = tx.init(params), []
  for i in range(len(next(iter(grads.values())))):
    updates, state = tx.update(_nested({key: g[i] for key, g in grads.items()}), state, params)
    params = jax.tree.map(lambda p, u, rate=0.01 * (i + 1): p - rate * u, params, updates)
    history.append(_flat(params))
  results = {key: np.stack([params[key] for params in history]) for key in grads}
  compare(results, golden.under(f'output/{name}'), lambda _: PARAMETERS)


def _nested(flat: dict[str, Any]) -> Any:
  tree: dict[str, Any] = {}
  for name, value in flat.items():
    *path, last = name.split('/')
    inside = tree
    for part in path:
      inside = inside.setdefault(part, {})
    inside[last] = jnp.asarray(value)
  return tree


def _flat(tree: Any) -> dict[str, Any]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {'/'.join(key.key for key in path): leaf for path, leaf in leaves}


def adamax(params: np.ndarray, grads: np.ndarray, rate: float) -> np.ndarray:
  """Returns the parameters after each update with Adamax."""
  tx, _ = optimizers.create(section(), 0)
  state, history = tx.init(params), []
  for grad in grads:
    updates, state = tx.update(grad, state, params)
    params = optax.apply_updates(params, jax.tree.map(lambda u: -rate * u, updates))
    history.append(params)
  return np.stack(history)
