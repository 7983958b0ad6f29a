"""Features that need no download: a convolutional network with random weights of a fixed seed.

Random features separate distributions (an untrained network is still a smooth, local, hierarchical
map), but their scale means nothing, and they see textures rather than objects.
"""

import functools
import math

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

NAME = 'random-conv-v1'  # rename it with every change of the numbers
SEED = 20_240_229
WIDTHS = (32, 64, 64)


@functools.cache
def _kernels(channels: int) -> tuple[np.ndarray, ...]:
  """Draws the kernels [5, 5, inputs, outputs] for pictures of so many channels."""
  rng, kernels = np.random.RandomState(SEED), []
  for width in WIDTHS:
    shape = (5, 5, channels, width)
    scale = math.sqrt(2 / math.prod(shape[:3]))
    kernels.append(rng.standard_normal(shape).astype(np.float32) * scale)
    channels = width
  return tuple(kernels)


def features(images: Array) -> Array:
  """Computes float32 [B, 64] of uint8 [B, H, W, C]: 16 means of each quarter of the last map."""
  x = images.astype(jnp.float32) / 127.5 - 1
  for kernel in _kernels(images.shape[-1]):
    x = jax.lax.conv_general_dilated(
      x, kernel, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    x = jax.nn.leaky_relu(x, 0.2)
  height, width = x.shape[1] // 2, x.shape[2] // 2
  quarters = [
    x[:, i * height : (i + 1) * height or None, j * width : (j + 1) * width or None].mean((1, 2))
    for i in (0, 1)
    for j in (0, 1)
  ]
  size = WIDTHS[-1] // len(quarters)
  return jnp.concatenate([q[:, i * size : (i + 1) * size] for i, q in enumerate(quarters)], axis=1)
