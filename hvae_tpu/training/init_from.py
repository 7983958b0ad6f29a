"""Starting a run from another run's weights (`train.init_from`)."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.runs.checkpoints import Checkpoints, path_name
from hvae_tpu.training.state import TrainState


def take(
  state: TrainState, source: str, mesh: Mesh, say: Callable[[str], None] = print
) -> TrainState:
  """Replaces parameters, their average and the model's state where name, shape and dtype agree.

  Args:
    state: fresh; its optimizer state and counters stay.
    source: work directory of the other run; its latest checkpoint is read.
    mesh: of `state`.
    say: told every array that is taken, missing there, or extra there.

  Raises:
    UserError: no checkpoint there, or nothing in it fits.
  """
  store = Checkpoints(source, read_only=True)
  try:
    step = store.resolve('latest')
    raw = store.restore_named(step, 'params', mesh)
    average = store.restore_named(step, 'ema_params', mesh) or raw
    persistent = store.restore_named(step, 'model_state', mesh)
  finally:
    store.close()
  params, taken = _merge(state.params, raw, 'params', say)
  if not taken:
    raise UserError(
      f'config.train.init_from={source}: none of the {len(raw)} parameters of its step {step} has '
      f'a name and shape of this model; give a run of the same system'
    )
  ema_params = state.ema_params
  if ema_params is not None:
    ema_params, _ = _merge(ema_params, average, 'ema_params', say)
  model_state, _ = _merge(state.model_state, persistent, 'model_state', say)
  say(f'took {taken} of {len(jax.tree.leaves(state.params))} parameters from {source} step {step}')
  return state.replace(params=params, ema_params=ema_params, model_state=model_state)


def _merge(
  tree: Any, found: dict[str, np.ndarray], field: str, say: Callable[[str], None]
) -> tuple[Any, int]:
  taken = set()

  def choose(path, leaf):
    name = path_name(path)
    array = found.get(name)
    if array is None:
      say(f'missing: {field}/{name} is not there and keeps its initial value')
      return leaf
    if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
      say(
        f'missing: {field}/{name} is {array.dtype}{list(array.shape)} there, '
        f'{leaf.dtype}{list(leaf.shape)} here, and keeps its initial value'
      )
      return leaf
    taken.add(name)
    say(f'taken: {field}/{name} {list(leaf.shape)}')
    return jax.device_put(array, leaf.sharding)

  merged = jax.tree_util.tree_map_with_path(choose, tree)
  for name in sorted(set(found) - taken):
    say(f'extra: {field}/{name} {list(found[name].shape)} is not used')
  return merged, len(taken)
