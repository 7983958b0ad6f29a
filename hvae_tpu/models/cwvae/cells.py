"""The recurrent cell of one level, run over all ticks of a sequence (RSSM; section 3 of the paper).

Everything that does not depend on the state is computed for all ticks at once, before or after the
loop: products with the context and with the encoder's features, noise, and the heads of the prior
where the posterior goes on. What is left inside is the sampled latent's way to the next one.

Products are taken in `dtype`; states, distributions and the sums of products are float32.
"""

import math
from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu import layers
from hvae_tpu.distributions import Normal

# Added to the hidden vector (not to what comes out) before the head of the deviations.
SHIFT = 0.54


class State(NamedTuple):
  """What a tick leaves to the next: `sample` [B, stoch] and `det` [B, deter]."""

  sample: Array
  det: Array


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


class Options(NamedTuple):
  """Sizes of a cell, and how it is computed.

  Attributes:
    stoch, deter, embed: of the latent, of the GRU's state, of hidden layers.
    min_std: added to every deviation.
    mean_only: the sample is the mean.
    init: 'lecun' or 'keras'.
    dtype: of products.
    remat, unroll: as in `layers.stack_blocks`, with ticks in place of blocks.
  """

  stoch: int
  deter: int
  embed: int
  min_std: float
  mean_only: bool
  init: str
  dtype: Any
  remat: str
  unroll: str

  def kernel_init(self):
    """Kernels: truncated normal by the fan-in (the port), or uniform by both fans (Keras)."""
    return lecun_normal if self.init == 'lecun' else layers.glorot_uniform()

  def product(self, x: Array, kernel: Array) -> Array:
    """x [..., n] @ kernel [n, m], float32."""
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    return jnp.matmul(x, kernel, preferred_element_type=jnp.float32)


def lecun_normal(rng: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
  """As Flax has it; drawn with two axes, since those of a convolution compile slowly on a CPU."""
  flat = (math.prod(shape[:-1]), shape[-1])
  return nn.initializers.lecun_normal()(rng, flat, dtype).reshape(shape)


class Weights(NamedTuple):
  """Of what is inside the loop.

  Attributes:
    sample: [stoch, embed], from the sample before to the GRU's input.
    gates: [embed, 3 deter] and [3 deter], from the input to the gates reset, update, new.
    recurrent: [deter, 3 deter] and [deter]; the bias is that of the new state, inside the reset.
    hidden: [deter, embed], from the GRU to the first hidden layer of the head.
    second: [embed, embed] and [embed]: the second hidden layer; None for the prior.
    head: [embed, 2 stoch] and [2 stoch]: means, and deviations before the softplus.
  """

  sample: Array
  gates: tuple[Array, Array]
  recurrent: tuple[Array, Array]
  hidden: Array
  second: tuple[Array, Array] | None
  head: tuple[Array, Array]


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
    gates = self.param('input_kernel', per_gate(c.kernel_init(), joint), (3, c.embed, c.deter))
    recurrent = self.param(
      'recurrent_kernel', per_gate(nn.initializers.orthogonal(), joint), (3, c.deter, c.deter)
    )
    bias = self.param('input_bias', zeros, (3, c.deter))
    new_bias = self.param('new_bias', zeros, (c.deter,))
    return (beside(gates), bias.reshape(-1)), (beside(recurrent), new_bias)


class Head(nn.Module):
  """Two layers as one, with what `SHIFT` adds to the deviations in the bias."""

  options: Options

  @nn.compact
  def __call__(self) -> tuple[Array, Array]:
    """`Weights.head`."""
    c = self.options
    shape = (c.embed, c.stoch)
    mean = Affine(shape, c.kernel_init(), name='mean')()
    std = Affine(shape, c.kernel_init(), name='std')()
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
    return jax.vmap(lambda key: initializer(key, (n, m)))(jax.random.split(rng, gates))

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
    init, num = c.kernel_init(), len(noise)
    kernel, bias = Affine((2 * c.stoch + c.deter, c.embed), init, name='prior_input')()
    context = jnp.broadcast_to(bias, (num, 1, c.embed))
    if above is not None:
      context = c.product(above, kernel[c.stoch :]) + bias
      context = context.repeat(repeats, axis=1)[:, :num].swapaxes(0, 1)
    gates, recurrent = Gru(c, name='gru')()
    hidden = Affine((c.deter, c.embed), init, name='prior_hidden')()
    prior_head = Head(c, name='prior_head')()
    weights = Weights(kernel[: c.stoch], gates, recurrent, hidden[0], None, prior_head)
    given = jnp.broadcast_to(hidden[1], (num, 1, c.embed))
    if features is not None:
      size = c.deter + features.shape[-1]
      first, bias = Affine((size, c.embed), init, name='posterior_input')()
      given = (c.product(features, first[c.deter :]) + bias).swapaxes(0, 1)
      weights = weights._replace(
        hidden=first[: c.deter],
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


def run(
  options: Options, weights: Weights, state: State, inputs: tuple[Array, ...]
) -> tuple[State, tuple[Array, Array, Array]]:
  """The loop.

  Args:
    inputs: context [T, B or 1, embed] and features [T, B or 1, embed] as the hidden layers take
      them, with their biases; noise [T, B, stoch]; keep [T].

  Returns:
    The last state, and of all ticks det [T, B, deter], sample [T, B, stoch], what the head gave
    [T, B, 2 stoch].
  """
  body = lambda state, inputs: tick(options, weights, state, *inputs)
  if options.remat != 'none':
    policy = layers.save_convolutions if options.remat == 'convs' else None
    body = jax.checkpoint(body, prevent_cse=False, policy=policy)
  num = len(inputs[0])
  unroll = num if options.unroll == 'full' else min(int(options.unroll), num)
  return jax.lax.scan(body, state, inputs, unroll=unroll)


def tick(
  c: Options, w: Weights, state: State, context: Array, given: Array, noise: Array, keep: Array
) -> tuple[State, tuple[Array, Array, Array]]:
  """One tick; arguments as `run`, of this tick."""
  x = nn.relu(context + c.product(state.sample * keep, w.sample))
  x = c.product(x, w.gates[0]) + w.gates[1]
  h = c.product(state.det, w.recurrent[0])
  (reset_x, update_x, new_x), (reset_h, update_h, new_h) = (jnp.split(v, 3, -1) for v in (x, h))
  update = nn.sigmoid(update_x + update_h)
  new = jnp.tanh(new_x + nn.sigmoid(reset_x + reset_h) * (new_h + w.recurrent[1]))
  det = (1 - update) * new + update * state.det
  hidden = nn.relu(c.product(det, w.hidden) + given)
  if w.second is not None:
    hidden = nn.relu(c.product(hidden, w.second[0]) + w.second[1])
  raw = c.product(hidden, w.head[0]) + w.head[1]
  mean, std = jnp.split(raw, 2, axis=-1)
  sample = mean if c.mean_only else mean + (nn.softplus(std) + c.min_std) * noise
  return State(sample, det), (det, sample, raw)
