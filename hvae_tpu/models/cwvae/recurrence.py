"""Loop over the ticks of one level; it holds only the work that depends on the state.

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
  """State of a level between two ticks: `sample` [B, stoch] and `det` [B, deter]."""

  sample: Array
  det: Array


class RSSMConfig(NamedTuple):
  """Sizes of a cell, and the form of its program.

  Attributes:
    stoch, deter, embed: sizes of the latent, of the GRU's state, of hidden layers.
    min_std: added to every deviation.
    mean_only: whether the sample is the mean.
    init: initializer of kernels, 'lecun' or 'keras'.
    dtype: precision of the factors of products.
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
    """Returns x [..., n] @ kernel [n, m], float32; its gradients are products of `dtype` too."""
    return product(self.dtype, x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(dtype: Any, x: Array, kernel: Array) -> Array:
  """Multiplies float32 arrays in `dtype`: x [..., n] and kernel [n, m] -> float32 [..., m].

  Plain differentiation would multiply float32 with `dtype`, which no unit for matrices does.
  """
  return jnp.matmul(x.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32)


def _product_forward(dtype: Any, x: CustomVJPPrimal, kernel: CustomVJPPrimal):
  # Inside the loop kernels are constants, so nothing is saved for their gradients.
  saved_x = x.value.astype(dtype) if kernel.perturbed else None
  return product.fun(dtype, x.value, kernel.value), (saved_x, kernel.value)


def _product_backward(dtype: Any, residuals: tuple[Array | None, Array], cotangent: Array):
  x, kernel = residuals
  x_gradient = product.fun(dtype, cotangent, kernel.T)
  return x_gradient, None if x is None else kernel_gradient(dtype, x, cotangent)


product.defvjp(_product_forward, _product_backward, symbolic_zeros=True)


def kernel_gradient(dtype: Any, x: Array, cotangent: Array) -> Array:
  """Returns the gradient [n, m] of a kernel, float32.

  Args:
    dtype: precision of the factors.
    x: [..., n], the inputs of the products.
    cotangent: [..., m], the gradient of the products.
  """
  x, cotangent = x.astype(dtype), cotangent.astype(dtype)
  return jnp.einsum('...n,...m->nm', x, cotangent, preferred_element_type=jnp.float32)


class Weights(NamedTuple):
  """Kernel [n, m] and bias [m] of every product inside the loop.

  A bias is None where it is added for all ticks before the loop.

  Attributes:
    sample: [stoch, embed], from the previous sample to the GRU's input.
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
  config: RSSMConfig, weights: Weights, state: State, inputs: tuple[Array, ...]
) -> tuple[State, tuple[Array, Array, Array]]:
  """Runs the loop.

  The gradient of a kernel is one product over all ticks, after the backward loop. Plain
  differentiation would add a gradient as large as all kernels at every tick.

  Args:
    config: sizes and form.
    weights: weights of all layers.
    state: before the first tick.
    inputs: context [T, B or 1, embed] and features [T, B or 1, embed], projected and with their
      biases; noise [T, B, stoch]; keep [T].

  Returns:
    The last state; and of all ticks det [T, B, deter], sample [T, B, stoch], outputs of the head
    [T, B, 2 stoch].
  """
  return scan(config, weights, state, inputs, {})[0]


def _run_forward(config: RSSMConfig, weights: Weights, state: State, inputs: tuple[Array, ...]):
  lead = inputs[2].shape[:2]
  shapes = {name: (*lead, layer[0].shape[1]) for name, layer in layers_of(weights).items()}
  taps = {name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()}
  ticks = lambda *arguments: scan(config, weights, *arguments)
  outputs, pullback, layer_inputs = jax.vjp(ticks, state, inputs, taps, has_aux=True)
  return outputs, (pullback, layer_inputs, weights)


def _run_backward(config: RSSMConfig, residuals: tuple, cotangents: tuple):
  pullback, layer_inputs, weights = residuals
  state, inputs, taps = pullback(cotangents)
  gradients = {}
  for name, (_, bias) in layers_of(weights).items():
    kernel = kernel_gradient(config.dtype, layer_inputs[name], taps[name])
    gradients[name] = (kernel, None if bias is None else taps[name].sum((0, 1)))
  return weights._replace(**gradients), state, inputs


run.defvjp(_run_forward, _run_backward)


def layers_of(weights: Weights) -> dict[str, tuple[Array, Array | None]]:
  """Returns the layers by name; a level that does not see its features lacks `second`."""
  return {name: layer for name, layer in weights._asdict().items() if layer is not None}


def scan(
  config: RSSMConfig,
  weights: Weights,
  state: State,
  inputs: tuple[Array, ...],
  taps: dict[str, Array],
) -> tuple[tuple[State, tuple[Array, Array, Array]], dict[str, Array]]:
  """Runs all ticks.

  Args:
    config, weights, state, inputs: as in `run`.
    taps: layer -> zeros [T, B, m]; the gradient by them is the gradient by the layer's outputs.
      Empty where no gradient is taken.

  Returns:
    The result of `run`, and layer -> its inputs [T, B, n].
  """
  body = lambda state, inputs: tick(config, weights, state, *inputs)
  if config.remat != 'none':
    policy = save_convolutions if config.remat == 'convs' else None
    body = jax.checkpoint(body, prevent_cse=False, policy=policy)
  num = len(inputs[0])
  unroll = num if config.unroll == 'full' else min(int(config.unroll), num)
  state, (outputs, layer_inputs) = jax.lax.scan(body, state, (*inputs, taps), unroll=unroll)
  return (state, outputs), layer_inputs


@jax.custom_vjp
def tap(x: Array, zeros: Array) -> Array:
  """Returns `x`; the gradient by the zeros, which are not read, equals the gradient by `x`."""
  return x


tap.defvjp(lambda x, zeros: (x, None), lambda _, cotangent: (cotangent, cotangent))


def tick(
  c: RSSMConfig,
  w: Weights,
  state: State,
  context: Array,
  features: Array,
  noise: Array,
  keep: Array,
  taps: dict[str, Array],
) -> tuple[State, tuple[tuple[Array, Array, Array], dict[str, Array]]]:
  """Computes one tick; the arguments are those of `scan` at this tick."""
  layer_inputs = {}

  def layer(name: str, x: Array) -> Array:
    layer_inputs[name] = x
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
  hidden = nn.relu(layer('hidden', det) + features)
  if w.second is not None:
    hidden = nn.relu(layer('second', hidden))
  raw = layer('head', hidden)
  mean, std = jnp.split(raw, 2, axis=-1)
  sample = mean if c.mean_only else mean + (nn.softplus(std) + c.min_std) * noise
  return State(sample, det), ((det, sample, raw), layer_inputs)
