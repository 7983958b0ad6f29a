"""Dumps of steps whose loss is not finite, so that they can be run again.

`<workdir>/nonfinite-<step>/` holds `bundle.json` and a checkpoint of the state.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
import ml_collections

from hvae_tpu import data
from hvae_tpu.devices.distributed import print_once
from hvae_tpu.errors import UserError
from hvae_tpu.runs.checkpoints import Checkpoints
from hvae_tpu.runs.workdir import to_json
from hvae_tpu.storage import files
from hvae_tpu.training import nonfinite, setup
from hvae_tpu.training.state import TrainState
from hvae_tpu.training.step import step_key

FILE = 'bundle.json'


class Recorder:
  """Writes one dump, for the first such step since the program started."""

  def __init__(
    self,
    workdir: Path,
    config: ml_collections.ConfigDict,
    dataset: data.Dataset,
    model: Any,
    mesh: Mesh,
  ):
    self._workdir, self._config, self._dataset = workdir, config, dataset
    self._model, self._mesh = model, mesh
    self._done = False

  def __call__(self, step: int, clock: int, state: TrainState) -> None:
    """Writes the dump of the update after `step`, unless there is one.

    Args:
      step: updates attempted before the bad one.
      clock: clock of the schedules of that update.
      state: at the next log. Skipped updates leave the weights alone, so these are the weights of
        the bad update, unless good updates came between.
    """
    directory = self._workdir / f'nonfinite-{step}'
    first, self._done = not self._done, True
    if not first or (directory / FILE).exists():
      return
    config = self._config
    batch = read_batch(config, self._dataset, self._mesh, step)
    _, grads = jax.jit(loss_and_gradients(self._model, config.seed))(
      state.params, state.model_state, batch, step, clock
    )
    indices = data.train_indices(
      self._dataset,
      config.data.train_split,
      batch_size=config.train.batch_size,
      seed=config.seed,
      step=step,
      seq_len=config.data.seq_len,
    )
    bundle = {
      'step': step,
      'clock': clock,
      'state_step': int(state.step),
      'seed': config.seed,
      'key': jax.random.key_data(step_key(config.seed, step)).tolist(),
      'batch_indices': indices.tolist(),
      'first_nonfinite_parameter': nonfinite.first_leaf(state.params),
      'first_nonfinite_gradient': nonfinite.first_leaf(grads),
    }
    checkpoints = Checkpoints(directory)
    meta = {'config': to_json(config), 'card': self._dataset.card, 'metrics': {}}
    checkpoints.save(bundle['state_step'], state, meta)
    checkpoints.close()
    if jax.process_index() == 0:
      files.save_json(directory / FILE, bundle)
    print_once(
      f'the loss of step {step:,} is not finite (first such parameter: '
      f'{bundle["first_nonfinite_parameter"]}, gradient: {bundle["first_nonfinite_gradient"]}); '
      f'wrote {directory}; look into it with --mode=replay'
    )


def loss_and_gradients(model: Any, seed: int) -> Callable:
  """Returns (params, model_state, batch, step, clock) -> (loss and extras, gradients)."""

  def function(params, model_state, batch, step, clock):
    return jax.value_and_grad(model.loss, has_aux=True)(
      params, model_state, batch, rng=step_key(seed, step), step=clock, train=True
    )

  return function


def read_batch(
  config: ml_collections.ConfigDict, dataset: data.Dataset, mesh: Mesh, step: int
) -> dict[str, jax.Array]:
  """Reads the global training batch of a step again."""
  batches = setup.train_batches(dataset, config, mesh, step)
  try:
    return next(batches)
  finally:
    batches.close()


def open_dump(workdir: Path, folder: str) -> tuple[Path, dict[str, Any]]:
  """Opens a dump.

  Args:
    workdir: work directory of the run.
    folder: folder of the dump; '' is the newest one of the run.

  Returns:
    The folder, and the contents of its JSON file.

  Raises:
    UserError: there is no dump, or it cannot be read.
  """
  dumps = sorted(workdir.glob(f'nonfinite-*/{FILE}'), key=lambda path: path.stat().st_mtime)
  if not folder and not dumps:
    raise UserError(f'{workdir} has no nonfinite-* folder: no step of it had a loss to look into')
  path = Path(folder) / FILE if folder else dumps[-1]
  remedy = 'correct config.replay.bundle, or leave it out for the newest one'
  return path.parent, files.read_json(path, remedy)
