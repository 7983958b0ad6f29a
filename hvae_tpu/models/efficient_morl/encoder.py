"""Encoder: pictures to one feature vector per pixel."""

from typing import Any

from flax import linen as nn
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.models.efficient_morl import weights

WIDTH = 64  # channels of features


def positions(side: int) -> np.ndarray:
  """Returns the coordinates of the pixels of a square map, float32 [side, side, 4].

  Channels: 1 - u, u, v, 1 - v, where u rises from 0 to 1 down the rows and v along the columns.
  """
  ramp = np.linspace(0, 1, side, dtype=np.float32)
  u, v = np.meshgrid(ramp, ramp, indexing='ij')
  return np.stack([1 - u, u, v, 1 - v], axis=-1)


class Encoder(nn.Module):
  """Network from [B, H, W, 3] in [-1, 1] to [B, H * W, 64], row-major, float32; H equals W.

  The convolutions compute in `dtype`. `scheme` is one of `weights.initializers`.
  """

  scheme: str
  dtype: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for i in range(4):
      inputs = x.shape[-1]
      conv = weights.conv(inputs, WIDTH, 5, 2, self.scheme, self.dtype, name=f'conv_{i}')
      x = nn.relu(conv(x))
    # The reference leaves this one layer at PyTorch's default.
    place = weights.linear(4, WIDTH, 'torch', 'positions')(positions(x.shape[1]))
    x = (x.astype(jnp.float32) + place).reshape(len(x), -1, WIDTH)
    x = weights.layer_norm('norm')(x)
    x = nn.relu(weights.linear(WIDTH, WIDTH, self.scheme, 'mlp_0')(x))
    return weights.linear(WIDTH, WIDTH, self.scheme, 'mlp_1')(x)
