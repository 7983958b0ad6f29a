"""Weights of the KL and of the penalties in training: pure functions."""

from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.models.nvae import regularisers
from hvae_tpu.models.protocol import Metrics, Params, State

KL_SCHEDULES = ('steps', 'epochs')
KL_BALANCES = ('square', 'equal', 'const', 'linear', 'sqrt')


def beta(c: Any, step: Array) -> Array:
  """Returns the weight of the whole KL at a step, []. `c` has the fields of `NVAE`.

  'steps' rises linearly from `kl_min` on. 'epochs' is a staircase that starts at 0 (mgp123/nvae).
  """
  if c.kl_schedule == 'epochs':
    epoch = jnp.asarray(step) // c.steps_per_epoch
    return (
      jnp.minimum(epoch / max(c.kl_warmup_epochs, 1), 1.0) if c.kl_warmup_epochs else jnp.ones(())
    )
  ramp = (jnp.asarray(step, jnp.float32) - c.kl_const_steps) / (c.kl_anneal_steps or 1e-6)
  return jnp.clip(ramp, min(c.kl_min, 1.0), 1.0)


def alphas(groups: tuple[int, ...], kind: str) -> np.ndarray:
  """Returns the per-group normalisers of KL balancing, float32 [L] (NVAE, section 3.2).

  Args:
    groups: number of groups per scale, the coarsest first.
    kind: one of `KL_BALANCES`; 'const' is another name of 'equal'.
  """
  scale = np.arange(len(groups), dtype=np.float64)
  per_scale = {
    'equal': np.ones(len(groups)),
    'const': np.ones(len(groups)),
    'linear': 2**scale,
    'sqrt': np.sqrt(2**scale),
    'square': 4**scale / np.array(groups),
  }[kind]
  per_group = np.repeat(per_scale, groups)
  return (per_group / per_group.min()).astype(np.float32)


def balance(kl: Array, alpha: Array) -> Array:
  """Returns weights of the groups in proportion to their KL, [L], of mean 1 (NVAE, section 3.2).

  Groups with a large KL pay more, so that no group falls silent. No gradient passes through.

  Args:
    kl: [B, L], nats.
    alpha: [L], from `alphas`.
  """
  share = jnp.abs(jax.lax.stop_gradient(kl)).mean(0) + 0.01
  share = share / alpha * share.sum()
  return share / share.mean()


def norm_weight(c: Any, weight: Array) -> Array:
  """Returns the factor of the regularisers at a step where the KL has this weight, []."""
  if not c.weight_decay_norm_init:
    return jnp.float32(c.weight_decay_norm)
  low, high = np.log(c.weight_decay_norm), np.log(c.weight_decay_norm_init)
  return jnp.exp((1 - weight) * high + weight * low)


def penalty(
  c: Any, params: Params, state: State, rng: Array, step: Array
) -> tuple[Array, State, Metrics]:
  """Returns the weighted regularisers, [], the new part of the state, and metrics."""
  if not c.weight_decay_norm:
    return jnp.zeros(()), {}, {}
  vectors = {}
  if c.regulariser == 'power':
    spectral = regularisers.power(params, c.flow_mask_side, rng)
  else:
    first = jnp.asarray(step) == 0
    iterations = jnp.where(first, regularisers.FIRST_ITERATIONS, regularisers.ITERATIONS)
    spectral, vectors['singular'] = regularisers.spectral(
      params, state['singular'], c.flow_mask_side, iterations
    )
  scales = regularisers.batch_norm_scales(params)
  weight = norm_weight(c, beta(c, step))
  norms = {'spectral_norm': spectral, 'batch_norm_scale': scales, 'norm_weight': weight}
  return weight * (spectral + scales), vectors, norms


def problems(c: Any) -> list[str]:
  """Returns a sentence for each pair of fields of the objective that do not fit together."""
  errors = []
  if c.num_bits != 8 and c.likelihood in ('bernoulli', 'logistic_mixture'):
    errors.append(f'model.num_bits={c.num_bits} must be 8 for model.likelihood={c.likelihood}')
  if c.weight_decay_norm_init and not c.weight_decay_norm:
    errors.append(
      f'model.weight_decay_norm_init={c.weight_decay_norm_init} is annealed to '
      f'model.weight_decay_norm={c.weight_decay_norm}, which must be positive'
    )
  return errors
