"""The loop over the ticks of one level: what depends on the state, and nothing else.

Products are taken in `dtype`; states, distributions and the sums of products are float32.
"""

import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import Array
from jax.custom_derivatives import CustomVJPPrimal
import jax.numpy as jnp

from hvae_tpu.nn.layers import save_convolutions


class State(NamedTuple):
  """What a tick leaves to the next: `sample` [B, stoch] and `det` [B, deter]."""

  sample: Array
  det: Array


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

  def product(self, x: Array, kernel: Array) -> Array:
    """x [..., n] @ kernel [n, m], float32; gradients, too, are products of `dtype`."""
    return product(self.dtype, x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(dtype: Any, x: Array, kernel: Array) -> Array:
  """`Options.product` of float32 arrays.

  Left to itself, the gradient would multiply float32 with `dtype`, which no unit for matrices does.
  """
  return jnp.matmul(x.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32)


def _product_forward(dtype: Any, x: CustomVJPPrimal, kernel: CustomVJPPrimal):
  # Inside the loop kernels are constants: nothing is kept for a gradient that nobody asks for.
  kept = x.value.astype(dtype) if kernel.perturbed else None
  return product.fun(dtype, x.value, kernel.value), (kept, kernel.value)


def _product_backward(dtype: Any, kept: tuple[Array | None, Array], cotangent: Array):
  x, kernel = kept
  of_x = product.fun(dtype, cotangent, kernel.T)
  return of_x, None if x is None else of_kernel(dtype, x, cotangent)


product.defvjp(_product_forward, _product_backward, symbolic_zeros=True)


def of_kernel(dtype: Any, x: Array, cotangent: Array) -> Array:
  """The gradient [n, m] of a kernel, float32.

  Args:
    x: [..., n], what it multiplied.
    cotangent: [..., m], the gradient of these products.
  """
  x, cotangent = x.astype(dtype), cotangent.astype(dtype)
  return jnp.einsum('...n,...m->nm', x, cotangent, preferred_element_type=jnp.float32)


class Weights(NamedTuple):
  """Of what is inside the loop: kernel [n, m] and bias [m] of every product.

  A bias is None where it is added for all ticks before the loop.

  Attributes:
    sample: [stoch, embed], from the sample before to the GRU's input.
    gates: [embed, 3 deter], from the input to the gates reset, update, new.
    recurrent: [deter, 3 deter]; the bias of the new state is inside the reset.
    hidden: [deter, embed], from the GRU to the first hidden layer of the head.
    second: [embed, embed], the second hidden layer; None for the prior.
    head: [embed, 2 stoch]: means, and deviations before the softplus.
  """

  sample: tuple[Array, None]
  gates: tuple[Array, Array]
  recurrent: tuple[Array, Array]
  hidden: tuple[Array, None]
  second: tuple[Array, Array] | None
  head: tuple[Array, Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def run(
  options: Options, weights: Weights, state: State, inputs: tuple[Array, ...]
) -> tuple[State, tuple[Array, Array, Array]]:
  """The loop.

  The gradient of a kernel is one product over all ticks, behind the backward loop. Left to itself,
  that loop would add up a gradient as large as all kernels at every tick.

  Args:
    inputs: context [T, B or 1, embed] and features [T, B or 1, embed] as the hidden layers take
      them, with their biases; noise [T, B, stoch]; keep [T].

  Returns:
    The last state, and of all ticks det [T, B, deter], sample [T, B, stoch], what the head gave
    [T, B, 2 stoch].
  """
  return scan(options, weights, state, inputs, {})[0]


def _run_forward(options: Options, weights: Weights, state: State, inputs: tuple[Array, ...]):
  lead = inputs[2].shape[:2]
  shapes = {name: (*lead, layer[0].shape[1]) for name, layer in present(weights).items()}
  taps = {name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()}
  ticks = lambda *arguments: scan(options, weights, *arguments)
  found, pull, factors = jax.vjp(ticks, state, inputs, taps, has_aux=True)
  return found, (pull, factors, weights)


def _run_backward(options: Options, kept: tuple, cotangents: tuple):
  pull, factors, weights = kept
  state, inputs, sums = pull(cotangents)
  found = {}
  for name, (_, bias) in present(weights).items():
    kernel = of_kernel(options.dtype, factors[name], sums[name])
    found[name] = (kernel, None if bias is None else sums[name].sum((0, 1)))
  return weights._replace(**found), state, inputs


run.defvjp(_run_forward, _run_backward)


def present(weights: Weights) -> dict[str, tuple[Array, Array | None]]:
  """The layers by name, without the second one of a level that does not see its features."""
  return {name: layer for name, layer in weights._asdict().items() if layer is not None}


def scan(
  options: Options,
  weights: Weights,
  state: State,
  inputs: tuple[Array, ...],
  taps: dict[str, Array],
) -> tuple[tuple[State, tuple[Array, Array, Array]], dict[str, Array]]:
  """What `run` returns, and of every layer what it multiplied, [T, B, n].

  `taps` are of every layer zeros [T, B, m], whose gradient is that of the layer's sums; or empty.
  """
  body = lambda state, inputs: tick(options, weights, state, *inputs)
  if options.remat != 'none':
    policy = save_convolutions if options.remat == 'convs' else None
    body = jax.checkpoint(body, prevent_cse=False, policy=policy)
  num = len(inputs[0])
  unroll = num if options.unroll == 'full' else min(int(options.unroll), num)
  state, (found, factors) = jax.lax.scan(body, state, (*inputs, taps), unroll=unroll)
  return (state, found), factors


@jax.custom_vjp
def tap(x: Array, zeros: Array) -> Array:
  """`x`, whose gradient is also that of the zeros, which are not read."""
  return x


tap.defvjp(lambda x, zeros: (x, None), lambda _, cotangent: (cotangent, cotangent))


def tick(
  c: Options,
  w: Weights,
  state: State,
  context: Array,
  given: Array,
  noise: Array,
  keep: Array,
  taps: dict[str, Array],
) -> tuple[State, tuple[tuple[Array, Array, Array], dict[str, Array]]]:
  """One tick; arguments as `scan`, of this tick."""
  factors = {}

  def layer(name: str, x: Array) -> Array:
    factors[name] = x
    kernel, bias = getattr(w, name)
    x = c.product(x, kernel)
    x = x if bias is None else x + bias
    return tap(x, taps[name]) if taps else x

  x = nn.relu(context + layer('sample', state.sample * keep))
  x, h = layer('gates', x), layer('recurrent', state.det)
  (reset_x, update_x, new_x), (reset_h, update_h, new_h) = (jnp.split(v, 3, -1) for v in (x, h))
  update = nn.sigmoid(update_x + update_h)
  new = jnp.tanh(new_x + nn.sigmoid(reset_x + reset_h) * new_h)
  det = (1 - update) * new + update * state.det
  hidden = nn.relu(layer('hidden', det) + given)
  if w.second is not None:
    hidden = nn.relu(layer('second', hidden))
  raw = layer('head', hidden)
  mean, std = jnp.split(raw, 2, axis=-1)
  sample = mean if c.mean_only else mean + (nn.softplus(std) + c.min_std) * noise
  return State(sample, det), ((det, sample, raw), factors)
