"""`--mode=replay`: a step whose loss was not finite, once more, to name where it began."""

import dataclasses
from pathlib import Path

import jax
import ml_collections

from hvae_tpu import models
from hvae_tpu.devices import sharding
from hvae_tpu.modes import loaded_run
from hvae_tpu.runs import restore
from hvae_tpu.runs.checkpoints import Checkpoints
from hvae_tpu.settings import setting
from hvae_tpu.training import nonfinite, nonfinite_dump, setup

FOLDERS = ()


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of `--mode=replay`."""

  bundle: str = setting('')  # folder `nonfinite-<step>`; '' is the newest in the work directory


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Replays `config.replay.bundle` on one CPU device, operation by operation.

  Returns:
    0 if the first non-finite intermediate was found, 1 if every one is finite here.

  Raises:
    UserError: there is no bundle.
  """
  options = loaded_run.read_options(Options, config, 'replay')
  directory, bundle = nonfinite_dump.open_dump(workdir, options.bundle)
  print(
    f'step {bundle["step"]:,}, key {bundle["key"]}, records {bundle["batch_indices"]}; first '
    f'non-finite parameter {bundle["first_nonfinite_parameter"]}, gradient '
    f'{bundle["first_nonfinite_gradient"]}'
  )
  mesh = sharding.make_mesh(1, 1, jax.local_devices(backend='cpu')[:1])
  model = models.create(config.model.to_dict(), 'cpu')
  dataset = setup.open_data(config)
  store = Checkpoints(directory, read_only=True)
  state = restore.restore_weights(store, bundle['state_step'], model, config.data, mesh, ('raw',))
  store.close()
  with jax.default_device(mesh.devices.flat[0]):
    batch = nonfinite_dump.read_batch(config, dataset, mesh, bundle['step'])
    place = nonfinite.first_intermediate(
      nonfinite_dump.loss_and_gradients(model, bundle['seed']),
      state.params,
      state.model_state,
      batch,
      bundle['step'],
      bundle['clock'],
    )
  if place is None:
    print(
      f'every intermediate is finite here: the state is that of step {bundle["state_step"]:,}, '
      f'and the arithmetic that of a CPU'
    )
    return 1
  print(f'first non-finite intermediate: {place}')
  return 0
