"""Traversals of single dimensions of a slot: ranges, activeness, and pictures."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.errors import UserError

LIMITS = ('range', 'reference')
STEPS = 6  # of a dimension, to measure how active it is


def latent_range(slots: np.ndarray) -> np.ndarray:
  """Returns the lowest and highest value of every dimension of slots [..., D]: [D, 2]."""
  flat = slots.reshape(-1, slots.shape[-1])
  return np.stack([flat.min(0), flat.max(0)], axis=1)


def limits(latent_range: np.ndarray, rule: str = 'range') -> np.ndarray:
  """Returns the limits of the values to show of every dimension, [D, 2].

  'range' takes `latent_range` [D, 2]. 'reference' does as EfficientMORL's code: half the width
  (which is not the middle), plus and minus the root of its distance from the ends.

  Raises:
    UserError: an unknown rule.
  """
  if rule not in LIMITS:
    raise UserError(f'the rule {rule!r} for the limits of dimensions must be {" or ".join(LIMITS)}')
  if rule == 'range':
    return latent_range
  low, high = latent_range.T
  middle = (high - low) / 2
  lower, upper = middle - np.sqrt(np.abs(middle - low)), middle + np.sqrt(np.abs(high - middle))
  return np.stack([lower, upper], axis=1)


def steps(limits: np.ndarray, count: int) -> np.ndarray:
  """Returns values at equal distances between limits [D, 2]: [D, count]."""
  return np.linspace(*limits.T.astype(np.float32), count, axis=1, dtype=np.float32)


Sweep = Callable[[Any, Array, Array, Array], tuple[Array, Array]]


def sweep(model: Any) -> Sweep:
  """Returns `run(params, slots, slot, values)`, for use inside of `jax.jit`.

  It takes slots [K, D] of a scene, the number of one slot, and values [D, V]. It gives the pictures
  [D, V, H, W, 3] in [0, 1] where one dimension of that slot has each value, and the masks of all
  slots in them, [D, V, K, H, W].
  """

  def run(params: Any, slots: Array, slot: Array, values: Array) -> tuple[Array, Array]:
    rgb, logits = model.paint(params, slots)

    def dimension(index_and_values: tuple[Array, Array]) -> tuple[Array, Array]:
      index, values = index_and_values
      # Other slots stay as they are, so they are painted once.
      changed = jnp.tile(slots[slot], (len(values), 1)).at[:, index].set(values)
      new_rgb, new_logits = model.paint(params, changed)

      def compose(new_rgb: Array, new_logits: Array) -> tuple[Array, Array]:
        masks = jax.nn.softmax(logits.at[slot].set(new_logits), axis=0)
        return (masks[..., None] * rgb.at[slot].set(new_rgb)).sum(0), masks

      return jax.vmap(compose)(new_rgb, new_logits)

    return jax.lax.map(dimension, (jnp.arange(len(values)), values))

  return run


def activeness(model: Any) -> Callable[[Any, Array, Array, Array], Array]:
  """Returns a jitted `run(params, slots, numbers, values)`: how much dimensions change pictures.

  It takes slots [B, K, D], the number of one slot of each scene [B], and values [D, V]. It gives
  the variance over the V pictures, mean over their pixels and channels: [B, D].
  """
  pictures = sweep(model)

  @jax.jit
  def run(params: Any, slots: Array, numbers: Array, values: Array) -> Array:
    def scene(slots_and_slot: tuple[Array, Array]) -> Array:
      painted, _ = pictures(params, *slots_and_slot, values)
      return painted.var(axis=1, ddof=1).mean((1, 2, 3))

    return jax.lax.map(scene, (slots, numbers))

  return run
