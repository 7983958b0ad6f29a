"""Likelihoods of pictures made of slots, weights of iterations, and the multiplier of GECO."""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.efficient_morl.decoders import Decoder

FLOOR = 0.55  # of GECO's beta, also its start; softplus(0.55) is 1.0055


class Canvas(NamedTuple):
  """Pictures of K slots.

  Attributes:
    rgb: [..., K, H, W, 3] in [0, 1].
    log_masks: [..., K, H, W], log-probabilities over the slots.
  """

  rgb: Array
  log_masks: Array

  @property
  def mean(self) -> Array:
    """Mean over the slots, by their masks: [..., H, W, 3]."""
    return (jnp.exp(self.log_masks)[..., None] * self.rgb).sum(-4)


def paint_slots(decoder: Decoder, params: Any, slots: Array) -> tuple[Array, Array]:
  """Paints every slot [..., D] by itself; `params` has 'decoder'.

  Returns:
    Colours [..., H, W, 3] in [0, 1], and logits of masks [..., H, W].
  """
  out = decoder.apply({'params': params['decoder']}, slots)
  return jax.nn.sigmoid(out[..., :3]), out[..., 3]


def paint(decoder: Decoder, params: Any, slots: Array) -> Canvas:
  """Paints the slots [..., K, D] of a picture together; `params` has 'decoder'."""
  rgb, logits = paint_slots(decoder, params, slots)
  return Canvas(rgb, jax.nn.log_softmax(logits, axis=-3))


def gaussian_nll(canvas: Canvas, x: Array, log_scale: float) -> Array:
  """Returns the nll of x [B, H, W, 3] in [0, 1] around the mean picture: [B], nats.

  Constants are left out.
  """
  error = jnp.square(x - canvas.mean)
  return (log_scale + error * (0.5 * math.exp(-2 * log_scale))).sum((1, 2, 3))


def mixture_nll(canvas: Canvas, x: Array, log_scale: float) -> Array:
  """Returns the nll where each channel of a pixel comes from one slot: [B], nats.

  The masks are the probabilities of the slots. Constants are left out.
  """
  error = jnp.square(x[:, None] - canvas.rgb)
  terms = canvas.log_masks[..., None] - log_scale - error * (0.5 * math.exp(-2 * log_scale))
  return -jax.nn.logsumexp(terms, axis=1).sum((1, 2, 3))


LIKELIHOODS: dict[str, Callable[[Canvas, Array, float], Array]] = {
  'gaussian': gaussian_nll,
  'mixture': mixture_nll,
}


def early(index: Array, last: Array) -> Array:
  """Returns the weights of the reference: the first iterations weigh most.

  The sum of the weights is larger where there are few iterations.
  """
  return (last + 3 - index) / (last + 1)


def uniform(index: Array, last: Array) -> Array:
  """Returns equal weights."""
  return jnp.ones_like(index) / (last + 1)


def late(index: Array, last: Array) -> Array:
  """Returns the weights of IODINE: the last iterations weigh most."""
  return (index + 1) / (last + 1)


# (number of an iteration, number of the last one) -> weight of its loss.
WEIGHTINGS: dict[str, Callable[[Array, Array], Array]] = {
  'early': early,
  'uniform': uniform,
  'late': late,
}


def refinements_at(curriculum: tuple[tuple[int, int], ...], step: Array) -> Array:
  """Returns the number of refinements of the last stage that has begun; int32 []."""
  starts, counts = (jnp.array(column, jnp.int32) for column in zip(*curriculum, strict=True))
  return counts[jnp.searchsorted(starts, step, side='right') - 1]


class Geco(NamedTuple):
  """State of GECO, the constraint on the reconstruction (Rezende & Viola, 2018): float32 [] each.

  Attributes:
    c_ema: moving average of target - nll; positive where the target is reached.
    beta: softplus(beta) weighs the nll.
  """

  c_ema: Array
  beta: Array


def initial_geco() -> Geco:
  """Returns the state before training."""
  return Geco(jnp.zeros(()), jnp.full((), FLOOR))


def refining_weights(geco: Geco, kl_beta: float, constrained: Array) -> tuple[Array, Array]:
  """Returns the weights of nll and KL in the loss whose gradient refines, [] each.

  Args:
    geco: state of GECO.
    kl_beta: weight of the KL.
    constrained: whether GECO is active, bool [].
  """
  return jnp.where(constrained, jax.nn.softplus(geco.beta), 1.0), jnp.float32(kl_beta)


def iteration_loss(nll: Array, kl: Array, geco: Geco, kl_beta: float, constrained: Array) -> Array:
  """Returns the value of an iteration's loss, a mean over pictures (the last axis), in nats.

  Under GECO it contains the moving average of the constraint, and its gradient does not follow from
  it: see `with_value`.
  """
  constraint = -jax.nn.softplus(geco.beta) * geco.c_ema
  return kl_beta * kl.mean(-1) + jnp.where(constrained, constraint, nll.mean(-1))


def with_value(x: Array, value: Array) -> Array:
  """Returns `value` with the gradient of `x`, an array of the same shape."""
  return jax.lax.stop_gradient(value - x) + x


def next_geco(c: Any, geco: Geco, nll: Array, step: Array) -> Geco:
  """Returns the state of GECO after a step.

  Nothing changes before step `geco_warm_start`; at that step the average begins.

  Args:
    c: the model, for its fields `geco_*`.
    geco: the state before.
    nll: mean of the last iteration, [], nats.
    step: step of the training, [].
  """
  constraint = c.geco_target * c.num_dims - nll
  mixed = c.geco_ema_alpha * geco.c_ema + (1 - c.geco_ema_alpha) * constraint
  rate = c.geco_beta_stepsize * jnp.where(mixed > 0, c.geco_step_size_acceleration, 1.0)
  beta = jnp.maximum(geco.beta - rate * mixed, FLOOR)
  warm, begins = step > c.geco_warm_start, step == c.geco_warm_start
  return Geco(
    jnp.where(warm, mixed, jnp.where(begins, constraint, geco.c_ema)),
    jnp.where(warm, beta, geco.beta),
  )


def curriculum_problems(curriculum: tuple[tuple[int, int], ...]) -> list[str]:
  """Returns the fault of the stages (first step, refinements), one sentence or none."""
  pairs = [stage for stage in curriculum if len(stage) == 2]
  starts = [start for start, _ in pairs]
  sound = pairs and len(pairs) == len(curriculum) and starts[0] <= 0 and starts == sorted(starts)
  if sound and all(count >= 0 for _, count in pairs):
    return []
  return [
    f'model.refinement_curriculum={curriculum} must be stages (first step, refinements), the first '
    f'from step 0 or -1, in order, with no negative number of refinements; for example '
    f'((-1, 3), (100000, 1))'
  ]
