"""Slots to pictures: three networks that paint one slot each.

All begin with the slot at every position of a square grid, to which a map of positions is added.
"""

from typing import Any

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.models import protocol
from hvae_tpu.models.efficient_morl import weights
from hvae_tpu.models.efficient_morl.encoder import positions
from hvae_tpu.models.protocol import Batch
from hvae_tpu.nn import cpu_kernels

OUTPUTS = 4  # three colours and the logit of the mask


class Broadcast(nn.Module):
  """The first convolution: of a slot at every position plus the map of positions.

  The maps of the slots are never made: the slot's part of the result is the same at all positions
  but those whose window reaches beyond the border, so it is computed once for each kind of
  position.
  """

  features: int
  kernel: int
  padding: int
  side: int  # of the grid
  dtype: Any

  @nn.compact
  def __call__(self, z: Array) -> Array:
    """[N, D] -> [N, m, m, features], m = side + 2 padding + 1 - kernel."""
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
      kinds = spread(kinds, repeats, axis)
    # A product: the gradient of a plain repetition is slow on a CPU.
    fixed = (jnp.ones((len(z), 1), self.dtype) @ fixed.reshape(1, -1)).reshape(kinds.shape)
    return kinds + fixed + bias


def windows(side: int, kernel: int, padding: int) -> tuple[np.ndarray, tuple[int, ...]]:
  """Kinds of windows along a side: which of their taps lie inside, and how many follow each other.

  Returns:
    float32 [kinds, kernel] of ones and zeros, and the length of the run of each kind.
  """
  starts = np.arange(side + 2 * padding + 1 - kernel) - padding
  taps = starts[:, None] + np.arange(kernel)
  inside = ((taps >= 0) & (taps < side)).astype(np.float32)
  changes = np.flatnonzero(np.any(inside[1:] != inside[:-1], axis=1)) + 1
  edges = [0, *changes.tolist(), len(starts)]
  return inside[edges[:-1]], tuple(np.diff(edges).tolist())


def spread(x: Array, repeats: tuple[int, ...], axis: int) -> Array:
  """Repeats the entries of an axis, each as often as `repeats` says."""
  parts = []
  for i, count in enumerate(repeats):
    part = jax.lax.slice_in_dim(x, i, i + 1, axis=axis)
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    parts.append(jnp.broadcast_to(part, shape))
  return jnp.concatenate(parts, axis=axis)


class Iodine(nn.Module):
  """3x3 convolutions without padding, from a grid ten larger than the picture."""

  side: int
  dtype: Any

  @nn.compact
  def __call__(self, z: Array) -> Array:
    x = nn.elu(Broadcast(64, 3, 0, self.side + 10, self.dtype, name='first')(z))
    for i in range(1, 4):
      x = nn.elu(weights.conv(64, 64, 3, 0, 'xavier', self.dtype, name=f'conv_{i}')(x))
    return weights.conv(64, OUTPUTS, 3, 0, 'xavier', self.dtype, name='conv_4')(x)


class Small(nn.Module):
  """5x5 convolutions that shrink by two each, from a grid six larger than the picture."""

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
    """A convolution of the map with `stride - 1` zeros behind every pixel: side * stride."""
    half = kernel // 2
    sides = (half, half + stride - 1, stride - 1)
    x = jax.lax.pad(x.astype(self.dtype), jnp.zeros((), self.dtype), (_KEPT, sides, sides, _KEPT))
    return weights.conv(x.shape[-1], features, kernel, 0, 'xavier', self.dtype, name=name)(x)


_KEPT = (0, 0, 0)  # an axis that `pad` leaves as it is
DECODERS = ('small', 'iodine', 'big')
BIG_SIDE = 96


class Decoder(nn.Module):
  """[..., D] -> [..., H, W, 4], float32: colours before the sigmoid, and logits of masks.

  `kind` is of `DECODERS`.
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


def painted(decoder: Decoder, params: Any, slots: Array) -> tuple[Array, Array]:
  """What every slot [..., D] paints by itself: `OptionalMethods.paint`. `params` has 'decoder'."""
  out = decoder.apply({'params': params['decoder']}, slots)
  return jax.nn.sigmoid(out[..., :3]), out[..., 3]


def problems(model: Any) -> list[str]:
  """What is wrong with the pictures and their decoder, one sentence each."""
  errors = []
  if model.image_channels != 3:
    errors.append(f'model.image_channels={model.image_channels} must be 3: slots paint colours')
  if model.image_size < 1:
    errors.append(f'model.image_size={model.image_size} must be at least 1')
  if model.image_decoder == 'big' and model.image_size != BIG_SIDE:
    errors.append(
      f"model.image_decoder='big' makes pictures of {BIG_SIDE} px, but model.image_size="
      f"{model.image_size}; use 'small' or 'iodine'"
    )
  return errors


def check_images(model: Any, batch: Batch) -> None:
  """Raises UserError if the pictures of a batch are not square, or not those of the model."""
  height, width, _ = batch['image'].shape[1:]
  if height != width:
    raise UserError(
      f'the data has images of {height}x{width} px, but slots need square ones; add '
      f"'centre_crop:{min(height, width)}' to config.data.train_transforms and eval_transforms"
    )
  protocol.check_images(model, batch)
