"""Frames to features and back: the two convolutional networks (64x64 px, no padding anywhere)."""

from typing import Any

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.nn import layers

SIZE = 64  # of a frame: what the strides below lead to
SLOPE = 0.2  # of the leaky ReLU
WIDTH = 1024  # channels of the one pixel that a frame grows from, times `channels_mult`
PIECE = 5  # pixels of a row that are taken at once; divides the 30 of the last layer
SHIFTS = [(i, j) for i in range(3) for j in range(3)]  # of a patch of 3 x 3 pixels


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
  `by_products` takes one matrix product (see `spread`): on a CPU its gradient is many times
  faster.
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

  Of pieces of rows where channels are few; else of pixels or of patches, whichever writes less: the
  product of patches is the larger one, since there are more of them. Both limits were measured.
  """
  num, n, _, channels = x.shape
  k, features = kernel.shape[0], kernel.shape[-1]
  if n == 1:
    kernel = kernel[::-1, ::-1].transpose(2, 0, 1, 3)
    return (x.reshape(num, channels) @ kernel.reshape(channels, -1)).reshape(num, k, k, features)
  kernel = jnp.pad(kernel, ((6 - k, 0), (6 - k, 0), (0, 0), (0, 0)))[::-1, ::-1]
  side = 2 * (n - 1) + k
  if channels * features <= 16 and n % PIECE == 0:
    return spread_pieces(x, kernel)[:, :side, :side]
  # Output pixel 2 q + s sees input pixel q - i through tap 2 i + s: three taps of each parity.
  kernel = kernel.reshape(3, 2, 3, 2, channels, features).transpose(0, 2, 4, 1, 3, 5)
  kernel = kernel.reshape(9, channels, 4 * features)
  patches = (n + 2) ** 2 * channels < 0.8 * n**2 * 4 * features
  out = (spread_patches if patches else spread_pixels)(x, kernel)
  out = out.reshape(num, n + 2, n + 2, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
  return out.reshape(num, 2 * n + 4, 2 * n + 4, features)[:, :side, :side]


def spread_patches(x: Array, kernel: Array) -> Array:
  """All patches of 3 x 3 pixels [N, n, n, C] with the kernel [9, C, F]: [N, n + 2, n + 2, F]."""
  num, n, _, channels = x.shape
  x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
  patches = [x[:, 2 - i : n + 4 - i, 2 - j : n + 4 - j] for i, j in SHIFTS]
  patches = jnp.concatenate(patches, axis=-1).reshape(-1, 9 * channels)
  return (patches @ kernel.reshape(9 * channels, -1)).reshape(num, n + 2, n + 2, -1)


def spread_pixels(x: Array, kernel: Array) -> Array:
  """As `spread_patches`: every pixel with the whole kernel, and what overlaps is added up."""
  num, n, _, channels = x.shape
  parts = x.reshape(-1, channels) @ kernel.swapaxes(0, 1).reshape(channels, -1)
  parts = jnp.split(parts.reshape(num, n, n, -1), 9, axis=-1)
  pads = [((0, 0), (i, 2 - i), (j, 2 - j), (0, 0)) for i, j in SHIFTS]
  return sum(jnp.pad(part, pad) for part, pad in zip(parts, pads, strict=True))


def spread_pieces(x: Array, kernel: Array) -> Array:
  """[N, n, n, C] with the kernel [6, 6, C, F], flipped, to [N, 2 n + 4, 2 n + 4, F].

  A piece of a row, PIECE * C numbers, makes six rows of 2 PIECE + 4 pixels: most of the matrix that
  does it is zero, which is still faster than moving single pixels of a few channels for every tap.
  PIECE divides n.
  """
  num, n, _, channels = x.shape
  features = kernel.shape[-1]
  tap = np.arange(2 * PIECE + 4) - 2 * np.arange(PIECE)[:, None]
  band = jnp.asarray(tap[..., None] == np.arange(6), x.dtype)  # [PIECE, 2 PIECE + 4, 6]
  band = jnp.einsum('pqv,uvcf->pcuqf', band, kernel).reshape(PIECE * channels, -1)
  parts = (x.reshape(-1, PIECE * channels) @ band).reshape(num, n, n // PIECE, 3, -1)
  pads = [((0, 0), (i, 2 - i), (0, 0), (0, 0)) for i in range(3)]
  rows = sum(jnp.pad(parts[:, :, :, i], pad) for i, pad in enumerate(pads))
  # [N, n + 2, n / PIECE, 2, ..] to whole rows; the last four pixels lie on the next piece's first.
  rows = rows.reshape(num, n + 2, n // PIECE, 2, -1, features).swapaxes(2, 3)
  whole = lambda pieces: pieces.reshape(num, 2 * n + 4, 2 * n, features)
  columns = lambda x, before, after: jnp.pad(x, ((0, 0), (0, 0), (before, after), (0, 0)))
  first, last = jnp.split(rows, [2 * PIECE], axis=4)
  last = jnp.pad(last, ((0, 0),) * 4 + ((0, 2 * PIECE - 4), (0, 0)))
  return columns(whole(first), 0, 4) + columns(whole(last), 2 * PIECE, 0)[:, :, : 2 * n + 4]
