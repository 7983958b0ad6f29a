"""Frames to features and back: the two convolutional networks (64x64 px, no padding anywhere)."""

from typing import Any

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu import layers

SIZE = 64  # of a frame: what the strides below lead to
SLOPE = 0.2  # of the leaky ReLU
WIDTH = 1024  # channels of the one pixel that a frame grows from, times `channels_mult`


class Encoder(nn.Module):
  """Frames [N, 64, 64, C] -> features [N, 32 * filters], float32.

  For `by_products` see `Conv`.
  """

  filters: int
  kernel_init: Any
  dtype: Any
  by_products: bool

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for i in range(4):
      conv = Conv(
        self.filters * 2**i, self.kernel_init, self.dtype, self.by_products, name=f'conv_{i}'
      )
      x = nn.leaky_relu(conv(x), SLOPE)
    return x.reshape(len(x), -1).astype(jnp.float32)


class Decoder(nn.Module):
  """Outputs of the lowest level [N, D] -> frames [N, 64, 64, C] before the last activation.

  `width` is that of the map of one pixel that the frames grow from; for `by_products` see
  `TransposedConv`.
  """

  width: int
  filters: int
  channels: int
  kernel_init: Any
  dtype: Any
  by_products: bool

  @nn.compact
  def __call__(self, x: Array) -> Array:
    dense = nn.Dense(self.width, kernel_init=self.kernel_init, dtype=self.dtype, name='dense')
    x = dense(x)[:, None, None]
    layout = ((5, 4 * self.filters), (5, 2 * self.filters), (6, self.filters), (6, self.channels))
    for i, (kernel, features) in enumerate(layout):
      x = x if i == 0 else nn.leaky_relu(x, SLOPE)
      x = TransposedConv(
        features, kernel, self.kernel_init, self.dtype, self.by_products, name=f'deconv_{i}'
      )(x)
    return x.astype(jnp.float32)


class Conv(nn.Module):
  """4 x 4, stride 2, no padding: [N, n, n, C] -> [N, n / 2 - 1, .., features].

  `by_products` takes one matrix product of all patches with the kernel: on a CPU its gradient is
  faster, most of all where there are many channels and few pixels.
  """

  features: int
  kernel_init: Any
  dtype: Any
  by_products: bool

  @nn.compact
  def __call__(self, x: Array) -> Array:
    kernel = self.param('kernel', self.kernel_init, (4, 4, x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    if self.by_products:
      return layers.add_bias(gather(x, kernel), bias)
    layout = ('NHWC', 'HWIO', 'NHWC')
    conv = jax.lax.conv_general_dilated
    maps = conv(x, kernel, (2, 2), 'VALID', dimension_numbers=layout)
    return layers.add_bias(maps, bias)


def gather(x: Array, kernel: Array) -> Array:
  """The convolution of `Conv` without bias: a patch is four neighbouring blocks of 2 x 2 pixels."""
  num, height, width, channels = x.shape
  rows, columns = height // 2 - 1, width // 2 - 1
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  x = x.reshape(num, rows + 1, 2, columns + 1, 2, channels).swapaxes(2, 3)
  x = x.reshape(num, rows + 1, columns + 1, 4 * channels)
  corners = [x[:, i : i + rows, j : j + columns] for i in range(2) for j in range(2)]
  patches = jnp.concatenate(corners, axis=-1).reshape(-1, 16 * channels)
  kernel = kernel.reshape(2, 2, 2, 2, channels, -1).swapaxes(1, 2).reshape(16 * channels, -1)
  return (patches @ kernel).reshape(num, rows, columns, -1)


class TransposedConv(nn.Module):
  """k x k, stride 2, no padding: [N, n, n, C] -> [N, 2 (n - 1) + k, .., features].

  The kernel [k, k, C, features] is correlated with the spread-out input, not flipped.
  `by_products` takes one matrix product, of pixels or of patches: on a CPU its gradient is many
  times faster.
  """

  features: int
  kernel: int
  kernel_init: Any
  dtype: Any
  by_products: bool

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.kernel, self.kernel, x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    if self.by_products:
      return layers.add_bias(spread(x, kernel), bias)
    layout = ('NHWC', 'HWIO', 'NHWC')
    maps = jax.lax.conv_transpose(x, kernel, (2, 2), 'VALID', dimension_numbers=layout)
    return layers.add_bias(maps, bias)


def spread(x: Array, kernel: Array) -> Array:
  """The transposed convolution of `TransposedConv` without bias, as a matrix product.

  Either of all pixels with the whole kernel, and what overlaps is added up; or of all patches of
  3 x 3 pixels with the kernel. The time goes by the memory of what overlaps, or of the patches;
  the product of patches is the larger one, since there are more of them than pixels.
  """
  num, n, _, channels = x.shape
  k, features = kernel.shape[0], kernel.shape[-1]
  if n == 1:
    kernel = kernel[::-1, ::-1].transpose(2, 0, 1, 3)
    return (x.reshape(num, channels) @ kernel.reshape(channels, -1)).reshape(num, k, k, features)
  # Output pixel 2 q + s sees input pixel q - i through tap 5 - 2 i - s: three taps of each parity.
  kernel = jnp.pad(kernel, ((6 - k, 0), (6 - k, 0), (0, 0), (0, 0)))[::-1, ::-1]
  kernel = kernel.reshape(3, 2, 3, 2, channels, features).transpose(0, 2, 4, 1, 3, 5)
  kernel = kernel.reshape(9, channels, 4 * features)
  shifts = [(i, j) for i in range(3) for j in range(3)]
  wide = n + 2
  if wide**2 * channels < 0.8 * n**2 * 4 * features:
    x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    patches = [x[:, 2 - i : 2 - i + wide, 2 - j : 2 - j + wide] for i, j in shifts]
    patches = jnp.concatenate(patches, axis=-1).reshape(-1, 9 * channels)
    out = patches @ kernel.reshape(9 * channels, -1)
  else:
    parts = x.reshape(-1, channels) @ kernel.swapaxes(0, 1).reshape(channels, -1)
    parts = jnp.split(parts.reshape(num, n, n, -1), 9, axis=-1)
    pads = [((0, 0), (i, 2 - i), (j, 2 - j), (0, 0)) for i, j in shifts]
    out = sum(jnp.pad(part, pad) for part, pad in zip(parts, pads, strict=True))
  out = out.reshape(num, wide, wide, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
  side = 2 * (n - 1) + k
  return out.reshape(num, 2 * wide, 2 * wide, features)[:, :side, :side]
