"""The mesh of devices, and the sharding of state and batches.

The mesh has three axes. A batch is split over `data` and `fsdp`. The state is replicated along
`data` and split along `fsdp`. Along `spatial`, the rows of pictures are split, so that several
devices share an example; the state is replicated. The compiler derives every collective from these
shardings.
"""

import functools
import math
import re
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from hvae_tpu.errors import UserError

AXES = ('data', 'fsdp')  # that split a batch
SPATIAL = 'spatial'
MIN_SHARDED_SIZE = 2**16  # elements; smaller arrays are not worth a collective
# A scanned run of n blocks is named `..x{n}` (`layers.stack_blocks`); its axis 0 is the stack.
STACK = re.compile(r'.*x(\d+)')


def make_mesh(data: int, fsdp: int, devices: list | None = None, spatial: int = 1) -> Mesh:
  """Makes the mesh of `config.mesh`. Devices along `spatial` are neighbours on one host.

  Args:
    data, fsdp, spatial: devices along each axis; -1: the devices that the other axes leave.
    devices: devices of the mesh; None: all.

  Raises:
    UserError: sizes that do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  total, sizes = len(devices), [data, fsdp, spatial]
  if sizes.count(-1) == 1:
    sizes[sizes.index(-1)] = total // max(1, -math.prod(sizes))
  if min(sizes) < 1 or math.prod(sizes) != total:
    asked = f'config.mesh.data={data} and config.mesh.fsdp={fsdp}'
    asked = asked if spatial == 1 else f'{asked} and config.mesh.spatial={spatial}'
    raise UserError(
      f'{asked} must multiply to the {total} devices found; at most one of them may be -1 (the '
      f'rest); try config.mesh.data=-1 with config.mesh.fsdp one of {_divisors(total)}'
    )
  on_a_host = sum(device.process_index == devices[0].process_index for device in devices)
  if on_a_host % sizes[2]:
    raise UserError(
      f'config.mesh.spatial={sizes[2]} must divide the {on_a_host} devices of a host; try one of '
      f'{_divisors(on_a_host)}'
    )
  names = (*AXES, SPATIAL)
  return Mesh(np.array(devices).reshape(sizes), names, axis_types=(AxisType.Auto,) * len(names))


def _divisors(n: int) -> list[int]:
  """Returns the divisors of a number, ascending."""
  return [d for d in range(1, n + 1) if n % d == 0]


def check_batch_size(batch_size: int, mesh: Mesh, key: str = 'train.batch_size') -> None:
  """Raises UserError if a global batch does not divide by the devices that share it."""
  shards = batch_shards(mesh)
  if batch_size < 1 or batch_size % shards:
    below = batch_size // shards * shards
    options = ' or '.join(str(b) for b in (below, below + shards) if b > 0)
    groups = f'{shards} groups of {mesh.shape[SPATIAL]}'
    devices = f'{shards} devices' if shards == mesh.size else groups
    raise UserError(
      f'config.{key}={batch_size} must be a positive multiple of the {devices}; try {options}'
    )


def batch_shards(mesh: Mesh) -> int:
  """Number of shards of the batch axis."""
  return mesh.size // mesh.shape[SPATIAL]


def platform(mesh: Mesh) -> str:
  """Returns the kind of the mesh's devices: 'cpu', 'gpu' or 'tpu'."""
  return mesh.devices.flat[0].platform


def replicated(mesh: Mesh) -> NamedSharding:
  """Sharding of an array that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, shape: tuple[int, ...] = ()) -> NamedSharding:
  """Sharding of an array of a batch, whose examples lie along axis 0.

  Rows of pictures [B, ..., H, W, C] are split along `spatial`, if they divide by it.
  """
  if len(shape) < 4 or mesh.shape[SPATIAL] == 1 or shape[-3] % mesh.shape[SPATIAL]:
    return NamedSharding(mesh, PartitionSpec(AXES))
  between = [None] * (len(shape) - 4)
  return NamedSharding(mesh, PartitionSpec(AXES, *between, SPATIAL))


def example_sharding(array: jax.Array) -> tuple[jax.sharding.Sharding, int]:
  """Sharding of the batch axis of an array, and its number of shards."""
  place = array.sharding
  shards = len(array) // place.shard_shape(array.shape)[0]
  if isinstance(place, NamedSharding):
    place = NamedSharding(place.mesh, PartitionSpec(*place.spec[:1]))
  return place, shards


def put(batch: Any, mesh: Mesh) -> Any:
  """Makes global arrays, split over the devices, from this process's rows of a global batch."""
  return jax.tree.map(
    lambda v: jax.make_array_from_process_local_data(batch_sharding(mesh, v.shape), v), batch
  )


def start_to_host(tree: Any) -> Any:
  """Starts the transfers of `to_host` behind the work that the devices have, without waiting.

  Returns:
    The tree to hand to `to_host`. Arrays that lie on several processes are gathered on all of them.
  """

  def start(leaf):
    if not isinstance(leaf, jax.Array):
      return leaf
    if not leaf.is_fully_addressable and not leaf.is_fully_replicated:
      leaf = _gather(leaf.sharding.mesh)(leaf)
    if leaf.is_fully_replicated:
      leaf = leaf.addressable_data(0)
    leaf.copy_to_host_async()
    return leaf

  return jax.tree.map(start, tree)


@functools.cache
def _gather(mesh: Mesh) -> Any:
  """Returns the jitted copy of an array to every device."""
  return jax.jit(lambda array: array, out_shardings=replicated(mesh))


def to_host(tree: Any) -> Any:
  """Returns sharded arrays as NumPy arrays, on every process."""

  def fetch(leaf):
    if getattr(leaf, 'is_fully_addressable', True):
      return leaf
    return multihost_utils.process_allgather(leaf, tiled=True)

  return jax.device_get(jax.tree.map(fetch, tree))


def state_shardings(shapes: Any, mesh: Mesh) -> Any:
  """Sharding of every leaf of a train state: a pytree of NamedSharding like `shapes`.

  A large array is split along its largest axis that divides by the `fsdp` axis. The axis that
  stacks the blocks of a scanned run is never split: each block would then live on one device.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: NamedSharding(mesh, _spec(path, leaf, mesh.shape['fsdp'])), shapes
  )


def _spec(path, leaf, fsdp: int) -> PartitionSpec:
  """Partition of one leaf; see `state_shardings`."""
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
