"""The recurrent cell of one level, run over all ticks of a sequence (RSSM; section 3 of the paper).

Everything that does not depend on the state is computed for all ticks at once, before or after the
loop: products with the context and with the encoder's features, noise, and the heads of the prior
where the posterior goes on. What is left inside is the sampled latent's way to the next one.
"""

import math
from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.cwvae.recurrence import Options, State, Weights, run
from hvae_tpu.nn import layers
from hvae_tpu.nn.distributions import Normal

# Added to the hidden vector (not to what comes out) before the head of the deviations.
SHIFT = 0.54


class Ticks(NamedTuple):
  """What a level did at each of its T ticks.

  Attributes:
    prior, posterior: [B, T, stoch]; the same where the level did not see its features.
    sample: [B, T, stoch], drawn from the posterior.
    det: [B, T, deter], states of the GRU.
  """

  prior: Normal
  posterior: Normal
  sample: Array
  det: Array

  @property
  def output(self) -> Array:
    """What the level below has for context, and the decoder for input: [B, T, stoch + deter]."""
    return jnp.concatenate([self.sample, self.det], axis=-1)


def kernel_init(options: Options):
  """Kernels: truncated normal by the fan-in (the port), or uniform by both fans (Keras)."""
  return lecun_normal if options.init == 'lecun' else layers.glorot_uniform()


def lecun_normal(rng: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
  """As Flax has it; drawn with two axes, since those of a convolution compile slowly on a CPU."""
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
  """Parameters of a GRU; the leading axis of the kernels has the gates reset, update, new."""

  options: Options

  @nn.compact
  def __call__(self) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """`Weights.gates` and `Weights.recurrent`."""
    c = self.options
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
  """Two layers as one, with what `SHIFT` adds to the deviations in the bias."""

  options: Options

  @nn.compact
  def __call__(self) -> tuple[Array, Array]:
    """`Weights.head`."""
    c = self.options
    shape = (c.embed, c.stoch)
    mean = Affine(shape, kernel_init(c), name='mean')()
    std = Affine(shape, kernel_init(c), name='std')()
    kernel = jnp.concatenate([mean[0], std[0]], axis=1)
    return kernel, jnp.concatenate([mean[1], std[1] + SHIFT * std[0].sum(0)])


def beside(gates: Array) -> Array:
  """[3, n, m] -> [n, 3 m]."""
  return jnp.moveaxis(gates, 0, 1).reshape(gates.shape[1], -1)


def per_gate(initializer, joint: bool):
  """Kernels [3, n, m]: one draw for each gate, or a joint one of [n, 3 m] as Keras has it."""

  def initialize(rng: Array, shape: tuple[int, ...]) -> Array:
    gates, n, m = shape
    if joint:
      return jnp.moveaxis(initializer(rng, (n, gates * m)).reshape(n, gates, m), 1, 0)
    # Not by `vmap`: batched QR decompositions of several levels, run at once by the few threads of
    # a small CPU, wait for each other for ever.
    return jnp.stack([initializer(key, (n, m)) for key in jax.random.split(rng, gates)])

  return initialize


class Cell(nn.Module):
  """One level. The parts that share no weights with the rest are named as the layers they are."""

  options: Options

  @nn.compact
  def __call__(
    self,
    above: Array | None,
    repeats: int,
    features: Array | None,
    state: State,
    noise: Array,
    keep: Array | None = None,
  ) -> tuple[Ticks, State]:
    """Runs the level from `state` on.

    Args:
      above: [B, ceil(T / repeats), stoch + deter], outputs of the level above; None: zeros.
      repeats: ticks of this level during one of the level above.
      features: [B, T, E], what the encoder saw; None: the posterior is the prior.
      noise: [T, B, stoch], standard normal.
      keep: [T], what the sample before each tick is multiplied by; None: 1.

    Returns:
      The ticks, and the state after the last one.
    """
    c = self.options
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
    given = jnp.broadcast_to(hidden[1], (num, 1, c.embed))
    if features is not None:
      size = c.deter + features.shape[-1]
      first, bias = Affine((size, c.embed), init, name='posterior_input')()
      given = (c.product(features, first[c.deter :]) + bias).swapaxes(0, 1)
      weights = weights._replace(
        hidden=(first[: c.deter], None),
        second=Affine((c.embed, c.embed), init, name='posterior_hidden')(),
        head=Head(c, name='posterior_head')(),
      )
    keep = jnp.ones(num) if keep is None else keep
    state, (det, sample, raw) = run(c, weights, state, (context, given, noise, keep))
    det, sample, raw = (jnp.swapaxes(v, 0, 1) for v in (det, sample, raw))
    posterior = prior = distribution(c, raw)
    if features is not None:
      h = nn.relu(c.product(det, hidden[0]) + hidden[1])
      prior = distribution(c, c.product(h, prior_head[0]) + prior_head[1])
    return Ticks(prior, posterior, sample, det), state


def distribution(options: Options, raw: Array) -> Normal:
  """What a head gives, [..., 2 stoch] -> the Gaussian."""
  mean, std = jnp.split(raw, 2, axis=-1)
  return Normal(mean, jnp.log(nn.softplus(std) + options.min_std))
