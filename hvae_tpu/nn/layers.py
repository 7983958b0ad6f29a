"""Layers, initialisers and scanned stacks that two or more systems share. Images are NHWC."""

from collections.abc import Callable
import functools
import math
from typing import Any

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.nn import cpu_kernels, distributions


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gelu(x: Array, approximate: bool = False) -> Array:
  """Computes GELU (erf form, or tanh approximation), keeping only its input for the backward pass.

  The plain function keeps four to six tensors a call, most of the memory of a deep block. The erf
  form uses `erf`, as PyTorch does: JAX's own form uses `erfc`, which costs a CPU twice as much.
  """
  if approximate:
    return nn.gelu(x, approximate=True)
  return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


def _gelu_forward(x, approximate):
  return gelu(x, approximate), x


def _gelu_backward(approximate, x, cotangent):
  return jax.vjp(lambda v: gelu.fun(v, approximate), x)[1](cotangent)


gelu.defvjp(_gelu_forward, _gelu_backward)


@jax.custom_vjp
def swish(x: Array) -> Array:
  """Computes x * sigmoid(x), keeping only its input for the backward pass."""
  return x * nn.sigmoid(x)


def _swish_backward(x, cotangent):
  gate = nn.sigmoid(x)
  return (cotangent * gate * (1 + x * (1 - gate)),)


swish.defvjp(lambda x: (swish(x), x), _swish_backward)


class Conv(nn.Module):
  """A square convolution with zeros around that keeps the size; parameters as those of `nn.Conv`.

  `stride` may also be `kernel`: then each output pixel has a patch of its own, without overlap.
  """

  features: int
  kernel: int
  kernel_init: Callable[..., Array]
  dtype: Any
  stride: int = 1

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.kernel, self.kernel, x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape).astype(self.dtype)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x = x.astype(self.dtype)
    if self.stride not in (1, self.kernel):
      raise ValueError(f'stride={self.stride} must be 1 or kernel={self.kernel}')
    if self.kernel == self.stride:
      maps = cpu_kernels.convolve_patches(x, kernel)
    else:
      layout = ('NHWC', 'HWIO', 'NHWC')
      maps = jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=layout)
    return cpu_kernels.add_bias(maps, bias)


class PaddedConv(nn.Module):
  """A square convolution of stride 1, with `padding` zeros on every side.

  It is fast inside of loops and branches (`cpu_kernels.convolve`). Parameters are those of
  `nn.Conv`.
  """

  features: int
  kernel: int
  padding: int
  kernel_init: Callable[..., Array]
  bias_init: Callable[..., Array]
  dtype: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.kernel, self.kernel, x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape)
    bias = self.param('bias', self.bias_init, (self.features,))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    return cpu_kernels.add_bias(cpu_kernels.convolve(x, kernel, self.padding), bias)


def upsample_nearest(x: Array, factor: int) -> Array:
  """Repeats each pixel: [B, H, W, C] -> [B, H * factor, W * factor, C]."""
  return x.repeat(factor, axis=1).repeat(factor, axis=2)


def average_pool(x: Array, factor: int) -> Array:
  """Averages blocks of pixels: [B, H, W, C] -> [B, H // factor, W // factor, C].

  Rows and columns that fill no block are dropped.
  """
  return nn.avg_pool(x, (factor, factor), strides=(factor, factor))


def pad_channels(x: Array, channels: int) -> Array:
  """Appends zero channels up to `channels`."""
  return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))


def uniform_fan_in(scale: float = 1.0) -> Callable[..., Array]:
  """Returns an initialiser, uniform on +-scale / sqrt(fan_in); scale 1 is PyTorch's default."""
  if scale == 0:
    return nn.initializers.zeros_init()

  def initialize(rng: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    limit = scale / math.prod(shape[:-1]) ** 0.5
    return distributions.uniform(rng, shape, -limit, limit).astype(dtype)

  return initialize


def glorot_uniform(scale: float = 1.0) -> Callable[..., Array]:
  """Returns an initialiser, uniform on +-scale * sqrt(6 / (fan_in + fan_out)).

  Scale 1 is Glorot & Bengio (2010).
  """
  if scale == 0:
    return nn.initializers.zeros_init()

  def initialize(rng: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    limit = scale * (6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1]))) ** 0.5
    return distributions.uniform(rng, shape, -limit, limit).astype(dtype)

  return initialize


def save_convolutions(primitive, *_, **__) -> bool:
  """Tells whether rematerialisation keeps a result: only convolutions and matrix products."""
  return primitive.name in ('conv_general_dilated', 'dot_general')


REMAT = ('none', 'blocks', 'convs')


def remat_block(block: type[nn.Module], remat: str, prevent_cse: bool = True) -> type[nn.Module]:
  """Returns a block that recomputes inner values for the backward pass, by `remat` of `REMAT`."""
  if remat == 'none':
    return block
  policy = save_convolutions if remat == 'convs' else None
  return nn.remat(block, prevent_cse=prevent_cse, policy=policy)


def rematerialised(function: Callable[..., Any], remat: str) -> Callable[..., Any]:
  """Returns a function that recomputes inner values for the backward pass, by `remat`."""
  if remat == 'none':
    return function
  return jax.checkpoint(function, policy=save_convolutions if remat == 'convs' else None)


def stack_blocks(
  block: type[nn.Module], count: int, in_axes, remat: str = 'none', unroll: int = 1
) -> type[nn.Module]:
  """Scans `count` copies of `block`: each parameter gains a leading axis [count].

  Args:
    block: module whose call is (carry, *inputs) -> (carry, outputs).
    count: number of copies; name the instance `..x{count}`, by which `sharding.py` knows the stack.
    in_axes: one per input: `nn.broadcast` (the same for all copies) or 0 (a slice each).
    remat: 'none'; 'blocks' keeps only the carry of each copy for the backward pass; 'convs' also
      keeps what convolutions and matrix products returned.
    unroll: copies per iteration of the compiled loop; `count` or more leaves no loop.
  """
  # Inside a loop the compiler cannot merge the two passes; in straight-line code it would.
  block = remat_block(block, remat, prevent_cse=unroll >= count)
  return nn.scan(
    block,
    length=count,
    unroll=min(unroll, count),
    in_axes=in_axes,
    variable_axes={'params': 0, 'batch_stats': 0, 'intermediates': 0},
    split_rngs={'params': True},
  )


def unstack(tree, count: int) -> list:
  """Splits a tree with leading axes [count] into `count` trees."""
  return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]
