"""Depthwise convolutions of stride 1, as products of shifted images.

XLA has no fast depthwise convolution for CPUs: at 5x5 this form is six times faster there, gradient
included. Accelerators have one, see `AUTO` in `hvae_tpu/models/__init__.py`.
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
  total = sum(part * w for part, w in zip(_shifted(x, kernel.shape[0]), weights, strict=True))
  return total.astype(x.dtype)


def _shifted(x: Array, size: int) -> Iterator[Array]:
  """What every weight of a size x size kernel multiplies, row by row."""
  pad, (height, width) = (size - 1) // 2, x.shape[1:3]
  x = jnp.pad(x.astype(jnp.float32), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  for i in range(size):
    for j in range(size):
      yield x[:, i : i + height, j : j + width]


def _backward(inputs: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
  x, kernel = inputs
  size, dy = kernel.shape[0], cotangent.astype(jnp.float32)
  products = [part * dy for part in _shifted(x, size)]
  rows = (products[i : i + size] for i in range(0, size**2, size))
  weights = jnp.stack([weight for row in rows for weight in _sums(row)])
  dx = convolve(cotangent, kernel[::-1, ::-1]).astype(x.dtype)
  return dx, weights.reshape(kernel.shape).astype(kernel.dtype)


def _sums(products: list[Array]) -> tuple[Array, ...]:
  """Each [B, H, W, C] -> [C], in one pass over them all: alone each would be a pass of its own."""
  zeros = (jnp.zeros(()),) * len(products)
  add = lambda left, right: tuple(a + b for a, b in zip(left, right, strict=True))
  return jax.lax.reduce(tuple(products), zeros, add, (0, 1, 2))


convolve.defvjp(lambda x, kernel: (convolve(x, kernel), (x, kernel)), _backward)
