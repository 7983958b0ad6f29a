"""Rows of images that are split over devices (mesh axis `spatial`)."""

import jax
from jax import Array

MIN_ROWS = 8  # of a part; with fewer, neighbours exchange most of a map for a 3x3 convolution


def row_parts() -> int:
  """Returns the number of devices that share the rows of an example, in the mesh of the trace."""
  return dict(jax.sharding.get_abstract_mesh().shape).get('spatial', 1)


def split_rows(x: Array, axis: int = 1) -> Array:
  """Keeps the rows of [B, H, W, C] split over mesh axis `spatial`, and small maps whole.

  Nothing happens without such an axis in the mesh of the trace.

  Args:
    axis: the rows, or rows and columns and channels in one axis.
  """
  parts = row_parts()
  if parts == 1:
    return x
  rows = x.shape[axis] % parts == 0 and x.shape[axis] >= MIN_ROWS * parts
  spec = [('data', 'fsdp'), *[None] * (axis - 1), 'spatial' if rows else None]
  return jax.lax.with_sharding_constraint(x, jax.sharding.PartitionSpec(*spec))
