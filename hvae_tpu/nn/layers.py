"""Blocks and helpers that two or more systems share. Images are NHWC."""

from collections.abc import Callable
import functools
import math
from typing import Any

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.nn import distributions


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gelu(x: Array, approximate: bool = False) -> Array:
  """GELU (erf form, or its tanh approximation) that keeps only its input for the backward pass.

  The plain function keeps four to six tensors a call, most of the memory of a deep block. The erf
  form is written with `erf`, as PyTorch does; the `erfc` of JAX's own costs a CPU twice as much.
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
  """x * sigmoid(x), keeping only its input for the backward pass, as `gelu` does."""
  return x * nn.sigmoid(x)


def _swish_backward(x, cotangent):
  gate = nn.sigmoid(x)
  return (cotangent * gate * (1 + x * (1 - gate)),)


swish.defvjp(lambda x: (swish(x), x), _swish_backward)


def pointwise_matmul(x: Array, kernel: Array) -> Array:
  """x [B, H, W, n] @ kernel [n, m].

  On a CPU the gradient of a product of one long axis needs no transposed copies. But rows that are
  one axis with the examples could not stay split over devices (`split_rows`).
  """
  if row_parts() > 1:
    return x @ kernel
  return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
  """x [..., m] + bias [m], which is float32 -> [..., m] in the type of `x`.

  The bias's gradient is summed in float32: a sum over all pixels that a CPU rounds to bfloat16 at
  every addition loses most of its digits.
  """
  return x + bias.astype(x.dtype)


def _add_bias_backward(_, cotangent):
  axes = tuple(range(cotangent.ndim - 1))
  return cotangent, cotangent.sum(axes, dtype=jnp.float32)


add_bias.defvjp(lambda x, bias: (add_bias.fun(x, bias), None), _add_bias_backward)


class Pointwise(nn.Module):
  """A 1x1 convolution as a matrix product over pixels.

  The same numbers and parameters as `nn.Conv`.
  """

  features: int
  kernel_init: Callable[..., Array]
  dtype: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    kernel = self.param('kernel', self.kernel_init, (1, 1, x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    return add_bias(pointwise_matmul(x, kernel[0, 0]), bias)


class Patches(nn.Module):
  """A convolution whose kernel is as large as its stride, as a matrix product over patches.

  The same numbers and parameters as `nn.Conv`; the gradient of a strided convolution is far slower.
  """

  features: int
  rate: int
  kernel_init: Callable[..., Array]
  dtype: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    r, (num, height, width, channels) = self.rate, x.shape
    kernel = self.param('kernel', self.kernel_init, (r, r, channels, self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    x = x.reshape(num, height // r, r, width // r, r, channels).swapaxes(2, 3)
    x = x.reshape(num, height // r, width // r, r * r * channels)
    return add_bias(pointwise_matmul(x, kernel.reshape(-1, self.features)), bias)


class SameConv(nn.Module):
  """A kernel x kernel convolution of stride 1 with zeros around; as `nn.Conv` but for its bias."""

  features: int
  kernel: int
  kernel_init: Callable[..., Array]
  dtype: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.kernel, self.kernel, x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape).astype(self.dtype)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    layout = ('NHWC', 'HWIO', 'NHWC')
    maps = jax.lax.conv_general_dilated(
      x.astype(self.dtype), kernel, (1, 1), 'SAME', dimension_numbers=layout
    )
    return add_bias(maps, bias)


def conv(features: int, kernel: int, kernel_init, dtype, name: str) -> nn.Module:
  """A kernel x kernel convolution that keeps the size (zero padding); biases start at zero."""
  if kernel == 1:
    return Pointwise(features, kernel_init, dtype, name=name)
  return SameConv(features, kernel, kernel_init, dtype, name=name)


def row_parts() -> int:
  """Devices that share the rows of an example, in the mesh that the program is traced for."""
  return dict(jax.sharding.get_abstract_mesh().shape).get('spatial', 1)


MIN_ROWS = 8  # of a part: below, what neighbours exchange for a 3x3 convolution is most of a map


def split_rows(x: Array, axis: int = 1) -> Array:
  """Keeps the rows of [B, H, W, C] split over mesh axis `spatial`, and small maps whole.

  Nothing happens without such an axis in the mesh that the program is traced for.

  Args:
    axis: the rows, or rows and columns and channels in one axis.
  """
  parts = row_parts()
  if parts == 1:
    return x
  rows = x.shape[axis] % parts == 0 and x.shape[axis] >= MIN_ROWS * parts
  spec = [('data', 'fsdp'), *[None] * (axis - 1), 'spatial' if rows else None]
  return jax.lax.with_sharding_constraint(x, jax.sharding.PartitionSpec(*spec))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: Array, kernel: Array, padding: int) -> Array:
  """A convolution whose gradients are as fast in a loop or a branch as outside, on a CPU too.

  There the compiler knows the fast form of a gradient only outside of loops, and takes a hundred
  times as long inside; as plain convolutions of transposed arrays it is fast everywhere.

  Args:
    x: [N, n, n, C].
    kernel: [k, k, C, features].
    padding: zeros on every side, less than k.

  Returns:
    [N, m, m, features], m = n + 2 * padding + 1 - k.
  """
  return _convolve(x, kernel, padding)


def _convolve(x: Array, kernel: Array, padding: int) -> Array:
  pads, layout = ((padding, padding), (padding, padding)), ('NHWC', 'HWIO', 'NHWC')
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=layout)


def _convolve_backward(padding, saved, cotangent):
  x, kernel = saved

  def plain(x, kernel, g):
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    by_x = _convolve(g, turned, len(kernel) - 1 - padding)
    by_kernel = _convolve(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), padding)
    return by_x, by_kernel.transpose(1, 2, 0, 3)

  def usual(x, kernel, g):
    return jax.vjp(functools.partial(_convolve, padding=padding), x, kernel)[1](g)

  return jax.lax.platform_dependent(x, kernel, cotangent, cpu=plain, default=usual)


# The forward pass calls the function itself, so that its own derivatives have these rules too.
convolve.defvjp(lambda x, kernel, p: (convolve(x, kernel, p), (x, kernel)), _convolve_backward)


class Conv(nn.Module):
  """Stride 1 and `padding` zeros on every side, by `convolve`; parameters as those of `nn.Conv`."""

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
    return add_bias(convolve(x, kernel, self.padding), bias)


def upsample_nearest(x: Array, factor: int) -> Array:
  """[B, H, W, C] -> [B, H * factor, W * factor, C], each pixel repeated."""
  return x.repeat(factor, axis=1).repeat(factor, axis=2)


def average_pool(x: Array, factor: int) -> Array:
  """[B, H, W, C] -> [B, H // factor, W // factor, C]; rows and columns left over are dropped."""
  return nn.avg_pool(x, (factor, factor), strides=(factor, factor))


def pad_channels(x: Array, channels: int) -> Array:
  """Appends zero channels up to `channels`."""
  return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))


def uniform_fan_in(scale: float = 1.0) -> Callable[..., Array]:
  """Uniform on +-scale / sqrt(fan_in): PyTorch's default for convolutions, multiplied."""
  if scale == 0:
    return nn.initializers.zeros_init()

  def initialize(rng: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    limit = scale / math.prod(shape[:-1]) ** 0.5
    return distributions.uniform(rng, shape, -limit, limit).astype(dtype)

  return initialize


def glorot_uniform(scale: float = 1.0) -> Callable[..., Array]:
  """Uniform on +-scale * sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio, 2010), multiplied."""
  if scale == 0:
    return nn.initializers.zeros_init()

  def initialize(rng: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    limit = scale * (6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1]))) ** 0.5
    return distributions.uniform(rng, shape, -limit, limit).astype(dtype)

  return initialize


def save_convolutions(primitive, *_, **__) -> bool:
  """Rematerialisation policy: keep what convolutions and matrix products computed."""
  return primitive.name in ('conv_general_dilated', 'dot_general')


REMAT = ('none', 'blocks', 'convs')


def remat_block(block: type[nn.Module], remat: str, prevent_cse: bool = True) -> type[nn.Module]:
  """A block that computes inner values again for the backward pass, by `remat` of `REMAT`."""
  if remat == 'none':
    return block
  policy = save_convolutions if remat == 'convs' else None
  return nn.remat(block, prevent_cse=prevent_cse, policy=policy)


def rematerialised(function: Callable[..., Any], remat: str) -> Callable[..., Any]:
  """A pure function that computes inner values again for the backward pass, by `remat`."""
  if remat == 'none':
    return function
  return jax.checkpoint(function, policy=save_convolutions if remat == 'convs' else None)


def stack_blocks(
  block: type[nn.Module], count: int, in_axes, remat: str = 'none', unroll: int = 1
) -> type[nn.Module]:
  """`count` copies of `block`, scanned: each parameter gains a leading axis [count].

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
  """A tree with leading axes [count] -> `count` trees."""
  return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]
