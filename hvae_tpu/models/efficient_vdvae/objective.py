"""Weights of the KL in the first steps of training: pure functions of the clock."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp


def _linear(c: Any, step: Array) -> Array:
  # The reference divides by start + steps, so 1 is reached at 2 * start + steps.
  ramp = (step - c.beta_start) / (c.beta_start + c.beta_steps)
  return jnp.clip(ramp, c.beta_min, 1.0)


def _logistic(c: Any, step: Array) -> Array:
  return jax.nn.sigmoid(c.beta_growth_rate * (step - c.beta_activation_step))


def _none(c: Any, step: Array) -> Array:
  return jnp.ones(())


BETA_SCHEDULES: dict[str, Callable[[Any, Array], Array]] = {
  'linear': _linear,
  'logistic': _logistic,
  'none': _none,
}


def beta(c: Any, step: Array) -> Array:
  """Returns the weight of the whole KL at a step, []. `c` has the fields of `EfficientVDVAE`."""
  return BETA_SCHEDULES[c.beta_schedule](c, jnp.asarray(step, jnp.float32))


def gamma(kl: Array, sizes: Array, step: Array, max_steps: int, scaled: bool) -> Array:
  """Returns weights of the groups in proportion to their KL, [L], of mean 1 (NVAE, section 3.2).

  Groups with a large KL pay more, so that no group falls silent. No gradient passes through.

  Args:
    kl: [L], mean over the batch.
    sizes: [L], latent dimensions of the groups.
    step: the clock.
    max_steps: last step with balancing; later weights are 1.
    scaled: whether to compare the KL per latent dimension, not per group.
  """
  share = jax.lax.stop_gradient(kl / sizes if scaled else kl)
  # No KL at all would give 0 / 0 in the branch that `where` does not take.
  total = share.sum()
  alpha = len(kl) * share / jnp.where(total == 0, 1.0, total)
  return jnp.where(step <= max_steps, alpha, 1.0)
