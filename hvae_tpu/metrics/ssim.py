"""Structural similarity of pictures (Wang et al., 2004).

As Efficient-VDVAE computes it: pixels beyond the border count as zeros.
"""

from jax import Array
import jax.numpy as jnp
import numpy as np

RADIUS, SIGMA = 5, 1.5  # of the Gaussian window, pixels
# Against divisions by zero: (0.01 * 255)^2 and (0.03 * 255)^2.
LUMINANCE, CONTRAST = 2.55**2, 7.65**2


def window() -> np.ndarray:
  """Returns the Gaussian window, float32 [11]; the two-dimensional one is its outer product."""
  weights = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
  return (weights / weights.sum()).astype(np.float32)


def similarity(a: Array, b: Array) -> Array:
  """Computes the SSIM of uint8 pictures [B, H, W, C], mean over pixels and channels: [B]."""
  a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
  moments = jnp.concatenate([a, b, a * a + b * b, a * b], axis=-1)
  mean_a, mean_b, squares, product = jnp.split(_blurred(moments), 4, axis=-1)
  both, sum_of_squares = mean_a * mean_b, mean_a**2 + mean_b**2
  luminance = (2 * both + LUMINANCE) / (sum_of_squares + LUMINANCE)
  contrast = (2 * (product - both) + CONTRAST) / (squares - sum_of_squares + CONTRAST)
  return (luminance * contrast).mean((1, 2, 3))


def _blurred(x: Array) -> Array:
  """Filters every channel of [B, H, W, C] by the window, with zeros beyond the border."""
  pad = ((0, 0), (RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0))
  x, (_, height, width, _) = jnp.pad(x, pad), x.shape
  # A sum of shifts, in float32 whatever the precision of convolutions is.
  x = sum(w * x[:, i : i + height] for i, w in enumerate(window()))
  return sum(w * x[:, :, i : i + width] for i, w in enumerate(window()))
