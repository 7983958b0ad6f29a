"""The state that a run starts from: the newest checkpoint, or a fresh one."""

from collections.abc import Callable
from pathlib import Path
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections

from hvae_tpu import data, models
from hvae_tpu.devices.distributed import print_once
from hvae_tpu.errors import UserError
from hvae_tpu.runs import workdir as workdirs
from hvae_tpu.runs.checkpoints import Checkpoints
from hvae_tpu.training import init_from
from hvae_tpu.training.state import TrainState, create_state


def check_resumable(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoints: Checkpoints,
) -> None:
  """Raises UserError if the directory has checkpoints of another run; prints changes of fields."""
  stored = workdirs.stored_config(workdir)
  if stored is not None and checkpoints.steps:
    stored['model'] = models.with_defaults(stored.get('model', {}))
    changeable = models.changeable_fields(config.model.name)
    workdirs.compare_configs(workdir, stored, config, changeable)


def check_same_data(stored: dict[str, Any], dataset: data.Dataset) -> None:
  """Raises UserError if the data set was built anew, and differently, since the checkpoint."""
  before, now = stored.get('build_id'), dataset.card['build_id']
  if before and before != now:
    raise UserError(
      f'{dataset.directory} is build {now[:12]}, but this run was trained on build {before[:12]} '
      f'(version {stored.get("version")}, limit {stored.get("limit")}): the same steps would see '
      'other examples. Build that one again, or use another --workdir, or '
      '--config.train.allow_config_change=true'
    )


def restore_newest(
  checkpoints: Checkpoints,
  abstract: Callable[[bool], TrainState],
  ema: bool,
) -> tuple[int, TrainState | None]:
  """Restores the newest state that is not damaged.

  A moving average that the run did not keep so far starts from the parameters.

  Args:
    checkpoints: checkpoints of the run; damaged ones that are newer are set aside.
    abstract: function of `ema`; shapes, dtypes and placements of the state.
    ema: whether the state has a moving average.

  Returns:
    Step and state; (0, None) if there is no checkpoint.
  """
  steps = checkpoints.steps
  if not steps:
    return 0, None
  began = time.perf_counter()

  def restore(step: int) -> TrainState:
    stored_ema = any(name.startswith('ema_params/') for name in checkpoints.shapes(step))
    state = checkpoints.restore(step, abstract(stored_ema))
    if ema and not stored_ema:
      return state.replace(ema_params=jax.tree.map(jnp.copy, state.params))
    return state if ema else state.replace(ema_params=None)

  start, state = checkpoints.restore_undamaged(steps, restore)
  for step in steps:
    if step > start:
      print_once(f'moved the damaged one to {checkpoints.set_aside(step)}')
  print_once(f'resumed at step {start:,} in {time.perf_counter() - began:.1f} s')
  return start, state


def fresh_state(
  config: ml_collections.ConfigDict,
  model: Any,
  tx: Any,
  batch: Any,
  mesh: Mesh,
) -> TrainState:
  """Creates a state of step 0, with the weights of `train.init_from` if it names a run."""
  began = time.perf_counter()
  state = create_state(model, tx, batch, mesh, config.train.ema_decay is not None, config.seed)
  jax.block_until_ready(state)
  print_once(f'initialised in {time.perf_counter() - began:.1f} s')
  if config.train.init_from:
    state = init_from.take(state, config.train.init_from, mesh)
  return state
