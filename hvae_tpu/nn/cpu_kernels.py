"""Depthwise convolutions of stride 1, as products of shifted images.

XLA has no fast depthwise convolution for CPUs: at 5x5 this form is ten times faster there, gradient
included. It goes through the batch image by image, which would serialise an accelerator and gather
a batch that is spread over devices; accelerators keep the convolution (`AUTO_ALWAYS` in
`hvae_tpu/models/__init__.py`).
"""

from collections.abc import Iterator

import jax
from jax import Array
import jax.numpy as jnp

FORMS = ('conv', 'shifts')


@jax.custom_vjp
def convolve(x: Array, kernel: Array) -> Array:
  """[B, H, W, C] and a kernel [k, k, 1, C], k odd, with zero padding -> [B, H, W, C].

  Sums are float32, whatever the inputs are. Reverse differentiation only.
  """
  weights = kernel.astype(jnp.float32).reshape(-1, x.shape[-1])

  # The loop keeps what is read 25 times in the cache, and keeps the compiler from computing what
  # made it 25 times.
  def convolve_one(x):
    parts = _shifted(x, kernel.shape[0])
    return sum(part * w for part, w in zip(parts, weights, strict=True)).astype(x.dtype)

  return jax.lax.map(convolve_one, x)


def _shifted(x: Array, size: int) -> Iterator[Array]:
  """What every weight of a size x size kernel multiplies, row by row: [H, W, C] each."""
  pad, (height, width, _) = (size - 1) // 2, x.shape
  x = jnp.pad(x.astype(jnp.float32), ((pad, pad), (pad, pad), (0, 0)))
  for i in range(size):
    for j in range(size):
      yield x[i : i + height, j : j + width]


def _backward(inputs: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
  x, kernel = inputs
  size, channels = kernel.shape[0], x.shape[-1]

  def add(total, pair):
    one, dy = pair[0], pair[1].astype(jnp.float32)
    return total + _sums([part * dy for part in _shifted(one, size)]), None

  weights, _ = jax.lax.scan(add, jnp.zeros((size**2, channels)), (x, cotangent))
  dx = convolve(cotangent, kernel[::-1, ::-1]).astype(x.dtype)
  return dx, weights.reshape(kernel.shape).astype(kernel.dtype)


def _sums(products: list[Array]) -> Array:
  """n times [H, W, C] -> [n, C], in one pass; each alone would take a pass of its own."""
  zeros = (jnp.zeros(()),) * len(products)
  add = lambda left, right: tuple(a + b for a, b in zip(left, right, strict=True))
  return jnp.stack(jax.lax.reduce(tuple(products), zeros, add, (0, 1)))


convolve.defvjp(lambda x, kernel: (convolve(x, kernel), (x, kernel)), _backward)
