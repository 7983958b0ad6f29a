"""Recurrent cell of one level, run over all ticks of a sequence (RSSM; section 3 of the paper).

Work that does not depend on the state is done for all ticks at once, before or after the loop:
products with the context and with the encoder's features, noise, and the heads of a prior that no
sample is drawn from. The loop holds only the path from one sampled latent to the next.
"""

import math
from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.cwvae.recurrence import RSSMConfig, State, Weights, run
from hvae_tpu.nn import layers
from hvae_tpu.nn.distributions import Normal

# Added to the hidden vector (not to what comes out) before the head of the deviations.
SHIFT = 0.54


class LevelOutputs(NamedTuple):
  """Distributions, samples and states of a level at each of its T ticks.

  Attributes:
    prior, posterior: [B, T, stoch]; the same where the level did not see its features.
    sample: [B, T, stoch], drawn from the posterior.
    det: [B, T, deter], states of the GRU after each tick.
  """

  prior: Normal
  posterior: Normal
  sample: Array
  det: Array

  @property
  def output(self) -> Array:
    """Context of the level below, and input of the decoder: [B, T, stoch + deter]."""
    return jnp.concatenate([self.sample, self.det], axis=-1)


def kernel_init(config: RSSMConfig):
  """Returns the initializer of kernels.

  The port's is truncated normal by the fan-in ('lecun'), Keras' is uniform by both fans ('keras').
  """
  return lecun_normal if config.init == 'lecun' else layers.glorot_uniform()


def lecun_normal(rng: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
  """Draws Flax's initial weights with two axes; four axes compile slowly on a CPU."""
  flat = (math.prod(shape[:-1]), shape[-1])
  return nn.initializers.lecun_normal()(rng, flat, dtype).reshape(shape)


class Affine(nn.Module):
  """Kernel [n, m] and bias [m] of a dense layer whose product is taken in parts."""

  shape: tuple[int, int]
  kernel_init: Any

  @nn.compact
  def __call__(self) -> tuple[Array, Array]:
    kernel = self.param('kernel', self.kernel_init, self.shape)
    return kernel, self.param('bias', nn.initializers.zeros, self.shape[1:])


class Gru(nn.Module):
  """Parameters of a GRU; the leading axis of the kernels is the gate: reset, update, new."""

  config: RSSMConfig

  @nn.compact
  def __call__(self) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Returns `Weights.gates` and `Weights.recurrent`."""
    c = self.config
    joint = c.init == 'keras'
    zeros = nn.initializers.zeros
    gates = self.param('input_kernel', per_gate(kernel_init(c), joint), (3, c.embed, c.deter))
    recurrent = self.param(
      'recurrent_kernel', per_gate(nn.initializers.orthogonal(), joint), (3, c.deter, c.deter)
    )
    bias = self.param('input_bias', zeros, (3, c.deter))
    new_bias = self.param('new_bias', zeros, (c.deter,))
    new_bias = jnp.pad(new_bias, (2 * c.deter, 0))
    return (beside(gates), bias.reshape(-1)), (beside(recurrent), new_bias)


class Head(nn.Module):
  """Layers of means and deviations as one; the bias contains the effect of `SHIFT`."""

  config: RSSMConfig

  @nn.compact
  def __call__(self) -> tuple[Array, Array]:
    """Returns `Weights.head`."""
    c = self.config
    shape = (c.embed, c.stoch)
    mean = Affine(shape, kernel_init(c), name='mean')()
    std = Affine(shape, kernel_init(c), name='std')()
    kernel = jnp.concatenate([mean[0], std[0]], axis=1)
    return kernel, jnp.concatenate([mean[1], std[1] + SHIFT * std[0].sum(0)])


def beside(gates: Array) -> Array:
  """Joins the kernels of three gates: [3, n, m] -> [n, 3 m]."""
  return jnp.moveaxis(gates, 0, 1).reshape(gates.shape[1], -1)


def per_gate(initializer, joint: bool):
  """Returns an initializer of kernels [3, n, m]: a draw a gate, or Keras' joint one [n, 3 m]."""

  def initialize(rng: Array, shape: tuple[int, ...]) -> Array:
    gates, n, m = shape
    if joint:
      return jnp.moveaxis(initializer(rng, (n, gates * m)).reshape(n, gates, m), 1, 0)
    # Not by `vmap`: on a small CPU, batched QR decompositions of several levels at once deadlock.
    return jnp.stack([initializer(key, (n, m)) for key in jax.random.split(rng, gates)])

  return initialize


class Cell(nn.Module):
  """One level of the hierarchy."""

  config: RSSMConfig

  @nn.compact
  def __call__(
    self,
    above: Array | None,
    repeats: int,
    features: Array | None,
    state: State,
    noise: Array,
    keep: Array | None = None,
  ) -> tuple[LevelOutputs, State]:
    """Runs the level from `state` on.

    Args:
      above: [B, ceil(T / repeats), stoch + deter], outputs of the level above; None: zeros.
      repeats: ticks of this level during one of the level above.
      features: [B, T, E], from the encoder; None: the posterior is the prior.
      state: before the first tick.
      noise: [T, B, stoch], standard normal.
      keep: [T], factors of the sample before each tick; None: 1.

    Returns:
      The outputs of all ticks, and the state after the last one.
    """
    c = self.config
    init, num = kernel_init(c), len(noise)
    kernel, bias = Affine((2 * c.stoch + c.deter, c.embed), init, name='prior_input')()
    context = jnp.broadcast_to(bias, (num, 1, c.embed))
    if above is not None:
      context = c.product(above, kernel[c.stoch :]) + bias
      context = context.repeat(repeats, axis=1)[:, :num].swapaxes(0, 1)
    gates, recurrent = Gru(c, name='gru')()
    hidden = Affine((c.deter, c.embed), init, name='prior_hidden')()
    prior_head = Head(c, name='prior_head')()
    weights = Weights(
      (kernel[: c.stoch], None), gates, recurrent, (hidden[0], None), None, prior_head
    )
    projected = jnp.broadcast_to(hidden[1], (num, 1, c.embed))
    if features is not None:
      size = c.deter + features.shape[-1]
      first, bias = Affine((size, c.embed), init, name='posterior_input')()
      projected = (c.product(features, first[c.deter :]) + bias).swapaxes(0, 1)
      weights = weights._replace(
        hidden=(first[: c.deter], None),
        second=Affine((c.embed, c.embed), init, name='posterior_hidden')(),
        head=Head(c, name='posterior_head')(),
      )
    keep = jnp.ones(num) if keep is None else keep
    state, (det, sample, raw) = run(c, weights, state, (context, projected, noise, keep))
    det, sample, raw = (jnp.swapaxes(v, 0, 1) for v in (det, sample, raw))
    posterior = prior = distribution(c, raw)
    if features is not None:
      h = nn.relu(c.product(det, hidden[0]) + hidden[1])
      prior = distribution(c, c.product(h, prior_head[0]) + prior_head[1])
    return LevelOutputs(prior, posterior, sample, det), state


def distribution(config: RSSMConfig, raw: Array) -> Normal:
  """Returns the Gaussian that the outputs [..., 2 stoch] of a head stand for."""
  mean, std = jnp.split(raw, 2, axis=-1)
  return Normal(mean, jnp.log(nn.softplus(std) + config.min_std))
