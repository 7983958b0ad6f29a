"""Frames to features and back: two convolutional networks (64x64 px, no padding anywhere)."""

from typing import Any

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.nn import cpu_kernels

SIZE = 64  # pixels a side of a frame; the strides below lead to it
SLOPE = 0.2  # of leaky ReLUs
WIDTH = 1024  # channels of the one pixel that a frame grows from, times `channels_mult`


class Encoder(nn.Module):
  """Network from frames [N, 64, 64, C] to features [N, 32 * filters], float32.

  `by_products` chooses the form of the convolutions for CPUs (`cpu_kernels`).
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
  """Network from outputs of the lowest level [N, D] to frames [N, 64, 64, C].

  The last activation is left out. Frames grow from a map of one pixel with `width` channels.
  `by_products` chooses the form of the convolutions for CPUs (`cpu_kernels`).
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
  """Convolution 4 x 4, stride 2, no padding: [N, n, n, C] -> [N, n // 2 - 1, .., features]."""

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
      return cpu_kernels.add_bias(cpu_kernels.convolve_strided(x, kernel), bias)
    layout = ('NHWC', 'HWIO', 'NHWC')
    conv = jax.lax.conv_general_dilated
    maps = conv(x, kernel, (2, 2), 'VALID', dimension_numbers=layout)
    return cpu_kernels.add_bias(maps, bias)


class TransposedConv(nn.Module):
  """Transposed convolution k x k, stride 2, no padding.

  It maps [N, n, n, C] to [N, 2 (n - 1) + k, .., features]. The kernel [k, k, C, features] is
  correlated with the spread-out input, not flipped.
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
      return cpu_kernels.add_bias(cpu_kernels.convolve_transposed(x, kernel), bias)
    layout = ('NHWC', 'HWIO', 'NHWC')
    maps = jax.lax.conv_transpose(x, kernel, (2, 2), 'VALID', dimension_numbers=layout)
    return cpu_kernels.add_bias(maps, bias)
