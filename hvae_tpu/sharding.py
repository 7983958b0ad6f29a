"""The mesh of devices, and where state and batches lie on it.

Two axes. A batch is split over both, `data` and `fsdp`; the state is replicated along `data` and
split along `fsdp`. The compiler derives every collective from these placements.
"""

import re
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from hvae_tpu.errors import UserError

AXES = ('data', 'fsdp')
# Smaller arrays are not worth a collective.
MIN_SHARDED_SIZE = 2**16
# A scanned run of n blocks is named `..x{n}` (`layers.stack_blocks`); its axis 0 is the stack.
STACK = re.compile(r'.*x(\d+)')


def make_mesh(data: int, fsdp: int, devices: list | None = None) -> Mesh:
  """The mesh of `config.mesh`; a size of -1 takes the devices that the other axis leaves.

  Raises:
    UserError: sizes that do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  total, sizes = len(devices), [data, fsdp]
  if sizes.count(-1) == 1:
    sizes[sizes.index(-1)] = total // max(1, -data * fsdp)
  if min(sizes) < 1 or sizes[0] * sizes[1] != total:
    raise UserError(
      f'config.mesh.data={data} and config.mesh.fsdp={fsdp} must multiply to the {total} devices '
      f'found; at most one of them may be -1 (the rest); try config.mesh.data=-1 with '
      f'config.mesh.fsdp one of {_divisors(total)}'
    )
  return Mesh(np.array(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _divisors(n: int) -> list[int]:
  return [d for d in range(1, n + 1) if n % d == 0]


def check_batch_size(batch_size: int, mesh: Mesh, key: str = 'train.batch_size') -> None:
  """Raises UserError if a global batch does not divide by the devices."""
  if batch_size < 1 or batch_size % mesh.size:
    below = batch_size // mesh.size * mesh.size
    options = ' or '.join(str(b) for b in (below, below + mesh.size) if b > 0)
    raise UserError(
      f'config.{key}={batch_size} must be a positive multiple of the {mesh.size} devices; '
      f'try {options}'
    )


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Axis 0 over all devices."""
  return NamedSharding(mesh, PartitionSpec(AXES))


def put(batch: Any, mesh: Mesh) -> Any:
  """A pytree of this process's rows of a global batch -> global arrays, split over the devices."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(lambda v: jax.make_array_from_process_local_data(sharding, v), batch)


def to_host(tree: Any) -> Any:
  """Arrays, wherever their parts lie, as NumPy arrays on every process."""

  def fetch(leaf):
    if getattr(leaf, 'is_fully_addressable', True):
      return leaf
    return multihost_utils.process_allgather(leaf, tiled=True)

  return jax.device_get(jax.tree.map(fetch, tree))


def state_shardings(shapes: Any, mesh: Mesh) -> Any:
  """Placement of every leaf of a train state: a pytree of NamedSharding like `shapes`.

  A large array is split along its largest axis that divides by the `fsdp` axis, never along the
  axis that stacks the blocks of a scanned run: each block would then live on one device.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: NamedSharding(mesh, _spec(path, leaf, mesh.shape['fsdp'])), shapes
  )


def _spec(path, leaf, fsdp: int) -> PartitionSpec:
  if fsdp == 1 or np.prod(leaf.shape, dtype=np.int64) < MIN_SHARDED_SIZE:
    return PartitionSpec()
  stacked = any(
    (match := STACK.fullmatch(str(getattr(key, 'key', '')))) and int(match[1]) == leaf.shape[0]
    for key in path
  )
  axes = [i for i, n in enumerate(leaf.shape) if n % fsdp == 0 and not (stacked and i == 0)]
  if not axes:
    return PartitionSpec()
  largest = max(axes, key=lambda i: leaf.shape[i])
  return PartitionSpec(*(['fsdp' if i == largest else None for i in range(leaf.ndim)]))
