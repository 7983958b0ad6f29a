"""`--mode=train`: starts a run, or resumes the one in the work directory."""

from collections.abc import Callable
import itertools
import os
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
import ml_collections

from hvae_tpu import data, evals, models
from hvae_tpu.devices import sharding
from hvae_tpu.devices.distributed import print_once
from hvae_tpu.devices.interruption import Interruption
from hvae_tpu.errors import UserError
from hvae_tpu.models import protocol
from hvae_tpu.runs.checkpoints import Checkpoints
from hvae_tpu.runs.metric_writer import Writer
from hvae_tpu.runs.workdir import store_config, to_json
from hvae_tpu.storage import buckets
from hvae_tpu.training import epochs, initial_state, nonfinite_dump, run_summary, setup
from hvae_tpu.training.loop import loop
from hvae_tpu.training.state import TrainState, abstract_state

FOLDERS = ('train', 'nonfinite-*', 'damaged-checkpoint-*', 'checkpoints')
IN_BUCKETS = True


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Trains to `config.train.num_steps`. Returns the exit code.

  Raises:
    UserError: a config that cannot be trained, or that differs from the run's in the directory.
  """
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, spatial=config.mesh.spatial)
  sharding.check_batch_size(config.train.batch_size, mesh)
  if checkpoint != 'latest':
    raise UserError(
      f'--checkpoint={checkpoint} is not for --mode=train, which resumes the latest; start another '
      f'--workdir with --config.train.init_from=DIR'
    )
  dataset = _open_dataset(config)
  _resolve_epochs(config, dataset)
  model, tx, train_step = setup.train_step(config, mesh)
  interruption = Interruption()
  evaluations = _evaluations(config, mesh, dataset, interruption)
  checkpoints = Checkpoints(
    workdir, **{k: config.train[k] for k in ('keep_latest', 'keep_every', 'best_metric')}
  )
  initial_state.check_resumable(config, workdir, checkpoints)
  if checkpoints.steps and checkpoints.steps[-1] >= config.train.num_steps:
    print_once(
      f'{workdir} is finished: step {checkpoints.steps[-1]:,} of config.train.num_steps='
      f'{config.train.num_steps:,}. Raise it to train on, or use --mode=eval or --mode=sample'
    )
    return 0
  spec = data.train_spec(dataset.card, config.data, config.train.batch_size)
  abstract = lambda ema: abstract_state(model, tx, spec, mesh, ema)
  ema = config.train.ema_decay is not None
  start, state = initial_state.restore_newest(checkpoints, abstract, ema)
  if state is not None and not config.train.allow_config_change:
    initial_state.check_same_data(checkpoints.meta(start)['card'], dataset)
  run_summary.show(config, mesh, dataset, workdir, start)
  for text in model.warnings(dataset.card) if hasattr(model, 'warnings') else ():
    print_once(f'warning: {text}')

  first = jax.process_index() == 0
  batches = setup.train_batches(dataset, config, mesh, start)
  writer = Writer(workdir / 'train', active=first, level_names=protocol.level_names(model))
  with interruption:
    try:
      batch = next(batches)
      if state is None:
        state = initial_state.fresh_state(config, model, tx, batch, mesh)
      if first:
        store_config(workdir, config)
        run_summary.record(state, config, writer, workdir, start)
      state = loop(
        state,
        setup.compile_step(train_step, state, batch, config.train, workdir / 'train'),
        itertools.chain([batch], batches),
        config.train,
        start=start,
        evaluations=evaluations,
        save=_saver(checkpoints, config, dataset, writer),
        diagnose=nonfinite_dump.Recorder(workdir, config, dataset, model, mesh),
        writer=writer,
        interruption=interruption,
      )
    finally:
      batches.close()
      checkpoints.close()
      writer.close()
  print_once(f'saved step {int(state.step):,} in {checkpoints.directory}')
  if not interruption.requested:
    return 0
  if int(state.step) < config.train.num_steps:
    print_once('stopped before its end; the same command resumes')
  return interruption.exit_code


def _open_dataset(config: ml_collections.ConfigDict) -> data.Dataset:
  """Opens and checks the data set; builds a missing one that is embedded."""
  section = config.data
  try:
    dataset = data.open_dataset(section.name, section.root)
  except UserError:
    bucket = buckets.is_remote(section.root or os.environ.get('HVAE_DATA', ''))
    if bucket or not section.name.startswith('demo_'):
      raise
    _build(section)
    dataset = data.open_dataset(section.name, section.root)
  data.check_required(dataset, section.train_split, **section.require)
  data.check_transforms(dataset.card, section)
  return dataset


def _build(section: ml_collections.ConfigDict) -> None:
  """Builds an embedded data set; `section` is `config.data`."""
  # Only here does training touch the preparation of data, which is otherwise off-line.
  from data_prep import build
  from data_prep.errors import DataPrepError

  try:
    build.build(section.name, section.root or None)
  except DataPrepError as error:
    raise UserError(str(error)) from error


def _resolve_epochs(config: ml_collections.ConfigDict, dataset: data.Dataset) -> None:
  """Turns epochs of the config into steps; raises UserError if no step is left."""
  size = data.num_examples(dataset, config.data.train_split, config.data.seq_len)
  if length := epochs.resolve(config, size):
    print_once(length)
  if not config.train.num_steps:
    raise UserError(
      'config.train.num_steps=0 must be at least 1; raise it, or set config.train.num_epochs'
    )


def _evaluations(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  dataset: data.Dataset,
  interruption: Interruption,
) -> list[tuple[str, int, Callable[[TrainState], dict[str, Any]]]]:
  """Builds the evaluations that run during training, on the validation view."""
  model = models.create(config.model.to_dict(), sharding.platform(mesh), differentiated=False)
  scheduled = evals.scheduled(config.evals, model)
  if not scheduled:
    return []
  batches = setup.eval_batches(dataset, config, mesh, 'valid', interruption.raise_if_interrupted)
  return [
    (name, every, evals.create(name, config.evals, model, batches, config.seed))
    for name, every in scheduled
  ]


def _saver(
  checkpoints: Checkpoints,
  config: ml_collections.ConfigDict,
  dataset: data.Dataset,
  writer: Writer,
) -> Callable[[int, TrainState, dict[str, Any]], None]:
  """Returns the function that saves a checkpoint with config, data card and newest results."""
  meta = {'config': to_json(config), 'card': dataset.card}

  def save(step: int, state: TrainState, results: dict[str, Any]) -> None:
    numbers = {k: float(v) for k, v in results.items() if not getattr(v, 'ndim', 0)}
    checkpoints.save(step, state, {**meta, 'metrics': numbers})
    writer.publish()

  return save
