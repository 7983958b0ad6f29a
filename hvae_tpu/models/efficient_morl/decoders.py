"""Decoders: three networks that paint one slot each.

Each puts the slot at every position of a square grid and adds a map of positions.
"""

from typing import Any

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.models.efficient_morl import weights
from hvae_tpu.models.efficient_morl.encoder import positions
from hvae_tpu.nn import cpu_kernels

OUTPUTS = 4  # three colours and the logit of the mask


class Broadcast(nn.Module):
  """First convolution, over the slot at every position plus the map of positions.

  The maps of the slots are never made. The slot's part of the result is equal wherever the window
  lies inside the grid, so it is computed once for each kind of window.
  """

  features: int
  kernel: int
  padding: int
  side: int  # of the grid
  dtype: Any

  @nn.compact
  def __call__(self, z: Array) -> Array:
    """Maps [N, D] to [N, m, m, features], m = side + 2 padding + 1 - kernel."""
    size, k = z.shape[-1], self.kernel
    place = weights.linear(4, size, 'xavier', 'positions')(positions(self.side))
    kernel = self.param('kernel', weights.xavier, (k, k, size, self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    z, place, kernel, bias = (v.astype(self.dtype) for v in (z, place, kernel, bias))
    fixed = cpu_kernels.convolve(place[None], kernel, self.padding)
    inside, repeats = windows(self.side, k, self.padding)
    sums = jnp.einsum('rk,sl,kldo->rsdo', inside, inside, kernel)
    kinds = jnp.einsum('nd,rsdo->nrso', z, sums)
    for axis in (1, 2):
      kinds = repeat_entries(kinds, repeats, axis)
    # A product: the gradient of a plain repetition is slow on a CPU.
    fixed = (jnp.ones((len(z), 1), self.dtype) @ fixed.reshape(1, -1)).reshape(kinds.shape)
    return kinds + fixed + bias


def windows(side: int, kernel: int, padding: int) -> tuple[np.ndarray, tuple[int, ...]]:
  """Returns the kinds of windows along a side, by the taps that lie inside.

  Returns:
    float32 [kinds, kernel], 1 for taps inside and 0 for others; and how many windows in a row are
    of each kind.
  """
  starts = np.arange(side + 2 * padding + 1 - kernel) - padding
  taps = starts[:, None] + np.arange(kernel)
  inside = ((taps >= 0) & (taps < side)).astype(np.float32)
  changes = np.flatnonzero(np.any(inside[1:] != inside[:-1], axis=1)) + 1
  edges = [0, *changes.tolist(), len(starts)]
  return inside[edges[:-1]], tuple(np.diff(edges).tolist())


def repeat_entries(x: Array, repeats: tuple[int, ...], axis: int) -> Array:
  """Repeats the entries of an axis, entry i `repeats[i]` times."""
  parts = []
  for i, count in enumerate(repeats):
    part = jax.lax.slice_in_dim(x, i, i + 1, axis=axis)
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    parts.append(jnp.broadcast_to(part, shape))
  return jnp.concatenate(parts, axis=axis)


class Iodine(nn.Module):
  """Convolutions 3x3 without padding, from a grid ten pixels larger than the picture."""

  side: int
  dtype: Any

  @nn.compact
  def __call__(self, z: Array) -> Array:
    x = nn.elu(Broadcast(64, 3, 0, self.side + 10, self.dtype, name='first')(z))
    for i in range(1, 4):
      x = nn.elu(weights.conv(64, 64, 3, 0, 'xavier', self.dtype, name=f'conv_{i}')(x))
    return weights.conv(64, OUTPUTS, 3, 0, 'xavier', self.dtype, name='conv_4')(x)


class Small(nn.Module):
  """Convolutions 5x5 that shrink by two each, from a grid six pixels larger than the picture."""

  side: int
  dtype: Any

  @nn.compact
  def __call__(self, z: Array) -> Array:
    x = nn.relu(Broadcast(32, 5, 1, self.side + 6, self.dtype, name='first')(z))
    for i in range(1, 3):
      x = nn.relu(weights.conv(32, 32, 5, 1, 'xavier', self.dtype, name=f'conv_{i}')(x))
    return weights.conv(32, OUTPUTS, 3, 1, 'xavier', self.dtype, name='conv_3')(x)


class Big(nn.Module):
  """Transposed convolutions from a grid of 6x6; for pictures of 96 px only."""

  dtype: Any

  @nn.compact
  def __call__(self, z: Array) -> Array:
    side = 6
    place = weights.linear(4, z.shape[-1], 'xavier', 'positions')(positions(side))
    x = z[:, None, None] + place
    for i in range(5):
      x = nn.relu(self._grow(x, 64, 5, 2 if i < 4 else 1, f'conv_{i}'))
    return self._grow(x, OUTPUTS, 3, 1, 'conv_5')

  def _grow(self, x: Array, features: int, kernel: int, stride: int, name: str) -> Array:
    """Convolves the map with `stride - 1` zeros after every pixel: side -> side * stride."""
    half = kernel // 2
    sides = (half, half + stride - 1, stride - 1)
    x = jax.lax.pad(x.astype(self.dtype), jnp.zeros((), self.dtype), (_SAME, sides, sides, _SAME))
    return weights.conv(x.shape[-1], features, kernel, 0, 'xavier', self.dtype, name=name)(x)


_SAME = (0, 0, 0)  # an axis that `pad` does not change
DECODERS = ('small', 'iodine', 'big')
BIG_SIDE = 96


class Decoder(nn.Module):
  """Network from slots [..., D] to [..., H, W, 4], float32; `kind` is one of `DECODERS`.

  The channels are three colours before the sigmoid, and the logit of the mask.
  """

  kind: str
  side: int
  dtype: Any

  @nn.compact
  def __call__(self, z: Array) -> Array:
    if self.kind == 'big':
      network = Big(self.dtype, name='big')
    elif self.kind == 'small':
      network = Small(self.side, self.dtype, name='small')
    else:
      network = Iodine(self.side, self.dtype, name='iodine')
    out = network(z.reshape(-1, z.shape[-1])).astype(jnp.float32)
    return out.reshape(*z.shape[:-1], *out.shape[1:])
