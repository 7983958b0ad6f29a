"""The mesh of devices, and where state and batches lie on it.

Three axes. A batch is split over `data` and `fsdp`; the state is replicated along `data` and split
along `fsdp`. Along `spatial`, the rows of pictures are split, so that an example may lie on several
devices; the state is replicated. The compiler derives every collective from these placements.
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

AXES = ('data', 'fsdp')  # of the batch
SPATIAL = 'spatial'
# Smaller arrays are not worth a collective.
MIN_SHARDED_SIZE = 2**16
# A scanned run of n blocks is named `..x{n}` (`layers.stack_blocks`); its axis 0 is the stack.
STACK = re.compile(r'.*x(\d+)')


def make_mesh(data: int, fsdp: int, devices: list | None = None, spatial: int = 1) -> Mesh:
  """The mesh of `config.mesh`; a size of -1 takes the devices that the other axes leave.

  Devices along `spatial` are neighbours, and belong to one host.

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
  return [d for d in range(1, n + 1) if n % d == 0]


def check_batch_size(batch_size: int, mesh: Mesh, key: str = 'train.batch_size') -> None:
  """Raises UserError if a global batch does not divide by the devices that share it."""
  parts = batch_parts(mesh)
  if batch_size < 1 or batch_size % parts:
    below = batch_size // parts * parts
    options = ' or '.join(str(b) for b in (below, below + parts) if b > 0)
    what = f'{parts} devices' if parts == mesh.size else f'{parts} groups of {mesh.shape[SPATIAL]}'
    raise UserError(
      f'config.{key}={batch_size} must be a positive multiple of the {what}; try {options}'
    )


def batch_parts(mesh: Mesh) -> int:
  """In how many parts a batch is split."""
  return mesh.size // mesh.shape[SPATIAL]


def platform(mesh: Mesh) -> str:
  """Returns the kind of the mesh's devices: 'cpu', 'gpu' or 'tpu'."""
  return mesh.devices.flat[0].platform


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, shape: tuple[int, ...] = ()) -> NamedSharding:
  """Axis 0 over the batch's axes; rows of pictures [B, ..., H, W, C], if they divide, `spatial`."""
  if len(shape) < 4 or mesh.shape[SPATIAL] == 1 or shape[-3] % mesh.shape[SPATIAL]:
    return NamedSharding(mesh, PartitionSpec(AXES))
  between = [None] * (len(shape) - 4)
  return NamedSharding(mesh, PartitionSpec(AXES, *between, SPATIAL))


def by_example(batch: jax.Array) -> tuple[jax.sharding.Sharding, int]:
  """Where the examples of an array of a batch lie, rows aside, and in how many parts."""
  place = batch.sharding
  parts = len(batch) // place.shard_shape(batch.shape)[0]
  if isinstance(place, NamedSharding):
    place = NamedSharding(place.mesh, PartitionSpec(*place.spec[:1]))
  return place, parts


def put(batch: Any, mesh: Mesh) -> Any:
  """A pytree of this process's rows of a global batch -> global arrays, split over the devices."""
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
