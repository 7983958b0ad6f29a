"""How parameters move: the `optimizer` section of a config -> an optax chain and a schedule.

The chain ends before the learning rate, which the train step applies by the clock of the config.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import optax

from hvae_tpu.errors import UserError


def _adamw(c: Any) -> optax.GradientTransformation:
  """Adam with decoupled weight decay on every tensor (Loshchilov & Hutter, 2019)."""
  return optax.chain(
    optax.scale_by_adam(c.b1, c.b2, c.eps), optax.add_decayed_weights(c.weight_decay)
  )


OPTIMIZERS = {'adamw': _adamw}


def _constant(c: Any) -> Callable[[Array], Array]:
  """Linear warm-up from 0 over `warmup_steps`, then constant. The very first update has rate 0."""
  warmup = max(c.warmup_steps, 1)
  return lambda step: jnp.minimum(step / warmup, 1.0) if c.warmup_steps else jnp.ones(())


SCHEDULES = {'constant': _constant}


def create(section: Any) -> tuple[optax.GradientTransformation, Callable[[Array], Array]]:
  """Builds the optimizer.

  Args:
    section: `config.optimizer`: name, schedule, learning_rate, warmup_steps, clip_norm (global L2
      norm; 0 = no clipping), and what the named optimizer reads.

  Returns:
    The chain from gradients to updates before the learning rate, and the learning rate as a
    function of the clock, a traced int32.

  Raises:
    UserError: an unknown name, or a number out of range.
  """
  for key, table in (('name', OPTIMIZERS), ('schedule', SCHEDULES)):
    if section[key] not in table:
      raise UserError(f'config.optimizer.{key}={section[key]!r} must be one of {", ".join(table)}')
  for key in ('learning_rate', 'warmup_steps', 'clip_norm', 'weight_decay'):
    if section[key] < 0:
      raise UserError(f'config.optimizer.{key}={section[key]} must not be negative')
  # Without a threshold too, so that the state has one structure.
  clip = optax.clip_by_global_norm(section.clip_norm) if section.clip_norm else optax.identity()
  chain = optax.chain(clip, OPTIMIZERS[section.name](section))
  factor = SCHEDULES[section.schedule](section)
  return chain, lambda step: section.learning_rate * factor(jnp.asarray(step))


def advance_counts(new: Any, old: Any) -> Any:
  """`old` optimizer state with the step counters of `new`, as vdvae-jax has it after a drop."""
  is_count = lambda path: str(getattr(path[-1], 'name', '')) == 'count'
  return jax.tree_util.tree_map_with_path(lambda p, n, o: n if is_count(p) else o, new, old)
