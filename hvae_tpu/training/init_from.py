"""Starts a run from another run's weights (`train.init_from`)."""

from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from hvae_tpu.devices.distributed import print_once
from hvae_tpu.errors import UserError
from hvae_tpu.runs.checkpoints import Checkpoints, path_name
from hvae_tpu.training.state import TrainState


def take(state: TrainState, source: str, mesh: Mesh) -> TrainState:
  """Replaces parameters, their average and the model's state where name, shape and dtype agree.

  Prints every array that is taken, missing in the other run, or not used.

  Args:
    state: fresh; its optimizer state and counters stay.
    source: work directory of the other run; its latest checkpoint is read.
    mesh: mesh of `state`.

  Raises:
    UserError: the other run has no checkpoint, or nothing in it fits.
  """
  checkpoints = Checkpoints(source, read_only=True)
  try:
    step = checkpoints.resolve('latest')
    raw = checkpoints.restore_named(step, 'params', mesh)
    average = checkpoints.restore_named(step, 'ema_params', mesh) or raw
    persistent = checkpoints.restore_named(step, 'model_state', mesh)
  finally:
    checkpoints.close()
  params, count = _merge(state.params, raw, 'params')
  if not count:
    raise UserError(
      f'config.train.init_from={source}: none of the {len(raw)} parameters of its step {step} has '
      f'a name and shape of this model; give a run of the same system'
    )
  ema_params = state.ema_params
  if ema_params is not None:
    ema_params, _ = _merge(ema_params, average, 'ema_params')
  model_state, _ = _merge(state.model_state, persistent, 'model_state')
  total = len(jax.tree.leaves(state.params))
  print_once(f'took {count} of {total} parameters from {source} step {step}')
  return state.replace(params=params, ema_params=ema_params, model_state=model_state)


def _merge(tree: Any, stored: dict[str, np.ndarray], field: str) -> tuple[Any, int]:
  """Replaces leaves of a tree by stored arrays that fit.

  Args:
    tree: one field of a train state.
    stored: arrays by the path of their leaf.
    field: name of the field, for messages.

  Returns:
    The new tree, and the number of leaves that were replaced.
  """
  used = set()

  def choose(path, leaf):
    name = path_name(path)
    array = stored.get(name)
    if array is None:
      print_once(f'missing: {field}/{name} is not there and keeps its initial value')
      return leaf
    if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
      print_once(
        f'missing: {field}/{name} is {array.dtype}{list(array.shape)} there, '
        f'{leaf.dtype}{list(leaf.shape)} here, and keeps its initial value'
      )
      return leaf
    used.add(name)
    print_once(f'taken: {field}/{name} {list(leaf.shape)}')
    return jax.device_put(array, leaf.sharding)

  merged = jax.tree_util.tree_map_with_path(choose, tree)
  for name in sorted(set(stored) - used):
    print_once(f'extra: {field}/{name} {list(stored[name].shape)} is not used')
  return merged, len(used)
