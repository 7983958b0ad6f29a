"""Checksums of arrays, the same for every sharding; `runs/checkpoints.py` compares them.

Orbax does not detect a flipped byte in a data file. Integer sums modulo 2^32 do. They do not depend
on the order of addition, and so neither on the sharding nor on the number of devices.
"""

from typing import Any

import jax
from jax import Array
import jax.numpy as jnp


@jax.jit
def _checksum(leaf: Array) -> Array:
  """Returns [2] uint32: the sum of the bits as integers, and the same weighted by position."""
  width = leaf.dtype.itemsize
  if leaf.dtype == jnp.bool_:
    bits = leaf.astype(jnp.uint32)
  else:
    bits = jax.lax.bitcast_convert_type(leaf, f'uint{8 * width}').astype(jnp.uint32)
  position = jnp.ones(leaf.shape, jnp.uint32)
  stride = 1
  for axis in reversed(range(leaf.ndim)):
    index = jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    position += index * jnp.uint32(stride % 2**32)
    stride *= leaf.shape[axis]
  return jnp.stack([bits.sum(dtype=jnp.uint32), (bits * position).sum(dtype=jnp.uint32)])


def checksums(leaves: dict[str, Array]) -> dict[str, list[int]]:
  """Returns the plain and the position-weighted sum of every array, by its name."""
  sums = jax.device_get({name: _checksum(leaf) for name, leaf in leaves.items()})
  return {name: [int(v) for v in pair] for name, pair in sums.items()}


def differing(leaves: dict[str, Array], expected: dict[str, Any]) -> list[str]:
  """Returns the names of the arrays whose checksums differ from the expected ones."""
  sums = checksums(leaves)
  return sorted(name for name in sums if sums[name] != expected.get(name))
