"""Layers and their initial weights: small Xavier, PyTorch's default, or preserving signals."""

from collections.abc import Callable
import math
from typing import Any

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.nn import distributions, layers

GAIN = 0.02  # of `xavier`, so small that a fresh decoder paints even grey with even masks
INITS = ('published', 'preserving')


def xavier(rng: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
  """Draws from N(0, std**2), std = GAIN * sqrt(2 / (fan_in + fan_out)).

  Both fans include the area of the kernel.
  """
  std = GAIN * math.sqrt(2 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))
  return (std * distributions.normal(rng, shape)).astype(dtype)


def standard_normal(rng: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
  """Draws from N(0, 1)."""
  return distributions.normal(rng, shape).astype(dtype)


def uniform(limit: float) -> Callable[..., Array]:
  """Returns an initializer that is uniform on [-limit, limit]."""

  def initialize(rng: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    return distributions.uniform(rng, shape, -limit, limit).astype(dtype)

  return initialize


def start(rng: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
  """Returns means of 0 and raw scales of 1, in one vector."""
  half = shape[0] // 2
  return jnp.concatenate([jnp.zeros(half, dtype), jnp.ones(half, dtype)])


def initializers(scheme: str, fan_in: int) -> dict[str, Callable[..., Array]]:
  """Returns initializers of kernel and bias.

  `scheme` is 'xavier' (biases of zero) or 'torch' (both uniform by `fan_in`).
  """
  if scheme == 'xavier':
    return dict(kernel_init=xavier, bias_init=nn.initializers.zeros)
  return dict(kernel_init=layers.uniform_fan_in(), bias_init=uniform(fan_in**-0.5))


def linear(inputs: int, features: int, scheme: str, name: str, use_bias: bool = True) -> nn.Dense:
  """Returns a layer from [..., inputs] to [..., features], float32."""
  return nn.Dense(features, use_bias=use_bias, name=name, **initializers(scheme, inputs))


def conv(
  inputs: int, features: int, kernel: int, padding: int, scheme: str, dtype: Any, name: str
) -> layers.PaddedConv:
  """Returns a layer [N, n, n, inputs] -> [N, m, m, features], m = n + 2 padding + 1 - kernel."""
  init = initializers(scheme, kernel**2 * inputs)
  return layers.PaddedConv(features, kernel, padding, dtype=dtype, name=name, **init)


def layer_norm(name: str) -> nn.LayerNorm:
  """Returns a normalisation over the last axis, with scale and bias, as PyTorch computes it."""
  return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)


def preserving(params: Any, size: int) -> Any:
  """Rescales fresh published weights of EfficientMORL, so that signals keep their size.

  With the published weights, features hardly depend on the picture (`GAIN`), and all slots are
  alike. On small scenes they still were after 1,800 steps of batch 8. Here kernels have the gain
  sqrt(2) of ReLUs (He et al., 2015), and `DualGRU` has the deviation 1 / sqrt(size). Raw scales are
  lowered by three in each layer, so that draws differ less than means do. Refinements keep their
  published weights: at first they change next to nothing.

  Args:
    params: weights of 'bottom_up', 'prior', 'decoder' and 'refinement'.
    size: dimensions of a slot.
  """

  def rescaled(path: tuple[Any, ...], leaf: Array) -> Array:
    names = [key.key for key in path]
    if names[-2] == 'gru':
      return leaf * size**-0.5
    if names[-2:] == ['mlp_softplus_1', 'bias']:
      return leaf - 3
    published = {'gru', 'refinement'} & set(names) or names[-3:-1] == ['encoder', 'positions']
    return leaf if published or names[-1] != 'kernel' else leaf * (math.sqrt(2) / GAIN)

  return jax.tree_util.tree_map_with_path(rescaled, params)
