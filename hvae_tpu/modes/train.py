"""`--mode=train`: starts a run, or resumes the one in the work directory."""

from collections.abc import Callable
import itertools
import os
from pathlib import Path
import time
from typing import Any

from clu import parameter_overview
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections

from hvae_tpu import data, evals, models
from hvae_tpu.devices import distributed, sharding
from hvae_tpu.devices.distributed import print_once
from hvae_tpu.devices.interruption import Interruption
from hvae_tpu.errors import UserError
from hvae_tpu.models import protocol
from hvae_tpu.runs.checkpoints import Checkpoints
from hvae_tpu.runs.metric_writer import Writer
from hvae_tpu.runs.workdir import check_resumable, flatten, store_config, stored_config, to_json
from hvae_tpu.storage import buckets
from hvae_tpu.training import epochs, init_from, nonfinite_dump, setup
from hvae_tpu.training.loop import loop
from hvae_tpu.training.profiling import Profiled
from hvae_tpu.training.state import TrainState, abstract_state, create_state
from hvae_tpu.training.step import Step, trace_step

FOLDERS = ('train', 'nonfinite-*', 'damaged-checkpoint-*', 'checkpoints')
IN_BUCKETS = True


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Trains to `config.train.num_steps`. Returns the exit code.

  Raises:
    UserError: a config that cannot be trained, or that differs from the run's in the directory.
  """
  first = jax.process_index() == 0
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, spatial=config.mesh.spatial)
  sharding.check_batch_size(config.train.batch_size, mesh)
  if checkpoint != 'latest':
    raise UserError(
      f'--checkpoint={checkpoint} is not for --mode=train, which resumes the latest; start another '
      f'--workdir with --config.train.init_from=DIR'
    )
  dataset = _open_dataset(config.data)
  data.check_required(dataset, config.data.train_split, **config.data.require)
  data.check_transforms(dataset.card, config.data)
  size = data.num_examples(dataset, config.data.train_split, config.data.seq_len)
  if length := epochs.resolve(config, size):
    print_once(length)
  if not config.train.num_steps:
    raise UserError(
      'config.train.num_steps=0 must be at least 1; raise it, or set config.train.num_epochs'
    )
  model, tx, train_step = setup.train_step(config, mesh)
  interruption = Interruption()
  evaluations = _evaluations(config, mesh, dataset, interruption)
  checkpoints = Checkpoints(
    workdir, **{k: config.train[k] for k in ('keep_latest', 'keep_every', 'best_metric')}
  )
  _check_resumable(config, workdir, checkpoints)
  if checkpoints.steps and checkpoints.steps[-1] >= config.train.num_steps:
    print_once(
      f'{workdir} is finished: step {checkpoints.steps[-1]:,} of config.train.num_steps='
      f'{config.train.num_steps:,}. Raise it to train on, or use --mode=eval or --mode=sample'
    )
    return 0
  batch = data.train_spec(dataset.card, config.data, config.train.batch_size)
  ema = config.train.ema_decay is not None
  abstract = lambda ema: abstract_state(model, tx, batch, mesh, ema)
  start, state = _resume(checkpoints, abstract, ema)
  if state is not None and not config.train.allow_config_change:
    _check_same_data(checkpoints.meta(start)['card'], dataset)
  _describe(config, mesh, dataset, workdir, start)
  for text in model.warnings(dataset.card) if hasattr(model, 'warnings') else ():
    print_once(f'warning: {text}')

  batches = setup.train_batches(dataset, config, mesh, start)
  writer = Writer(workdir / 'train', active=first, level_names=protocol.level_names(model))
  with interruption:
    try:
      batch = next(batches)
      if state is None:
        state = _fresh(config, model, tx, batch, mesh)
      if first:
        store_config(workdir, config)
        _record(state, config, writer, workdir, start)
      state = loop(
        state,
        _compile(train_step, state, batch, config.train, workdir / 'train'),
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


def _open_dataset(section: Any) -> data.Dataset:
  """Opens the data set; an embedded one is built where it is missing."""
  try:
    return data.open_dataset(section.name, section.root)
  except UserError:
    bucket = buckets.is_remote(section.root or os.environ.get('HVAE_DATA', ''))
    if bucket or not section.name.startswith('demo_'):
      raise
  # Only here does training touch the preparation of data, which is otherwise off-line.
  from data_prep import build
  from data_prep.errors import DataPrepError

  try:
    build.build(section.name, section.root or None)
  except DataPrepError as error:
    raise UserError(str(error)) from error
  return data.open_dataset(section.name, section.root)


def _evaluations(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  dataset: data.Dataset,
  interruption: Interruption,
) -> list[tuple[str, int, Callable[[TrainState], dict[str, Any]]]]:
  """The evaluations that run during training, on the validation view."""
  model = models.create(config.model.to_dict(), sharding.platform(mesh), differentiated=False)
  scheduled = evals.scheduled(config.evals, model)
  if not scheduled:
    return []
  batches = setup.eval_batches(dataset, config, mesh, 'valid', interruption.raise_if_interrupted)
  return [
    (name, every, evals.create(name, config.evals, model, batches, config.seed))
    for name, every in scheduled
  ]


def _check_resumable(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoints: Checkpoints,
) -> None:
  """Raises UserError if the directory has checkpoints of another run; tells what changes."""
  stored = stored_config(workdir)
  if stored is not None and checkpoints.steps:
    stored['model'] = models.with_defaults(stored.get('model', {}))
    changeable = models.changeable_fields(config.model.name)
    check_resumable(workdir, stored, config, changeable)


def _check_same_data(stored: dict[str, Any], dataset: data.Dataset) -> None:
  """Raises UserError if the data set was built anew, and differently, since the checkpoint."""
  before, now = stored.get('build_id'), dataset.card['build_id']
  if before and before != now:
    raise UserError(
      f'{dataset.directory} is build {now[:12]}, but this run was trained on build {before[:12]} '
      f'(version {stored.get("version")}, limit {stored.get("limit")}): the same steps would see '
      'other examples. Build that one again, or use another --workdir, or '
      '--config.train.allow_config_change=true'
    )


def _resume(
  checkpoints: Checkpoints,
  abstract: Callable[[bool], TrainState],
  ema: bool,
) -> tuple[int, TrainState | None]:
  """The newest state that is not damaged, and its step; (0, None) where there is none.

  An average of the parameters that was not kept so far starts from them.
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

  start, state = checkpoints.restore_newest(steps, restore)
  for step in steps:
    if step > start:
      print_once(f'moved the damaged one to {checkpoints.set_aside(step)}')
  print_once(f'resumed at step {start:,} in {time.perf_counter() - began:.1f} s')
  return start, state


def _fresh(
  config: ml_collections.ConfigDict,
  model: Any,
  tx: Any,
  batch: Any,
  mesh: Mesh,
) -> TrainState:
  """A state of step 0, perhaps with another run's weights."""
  began = time.perf_counter()
  state = create_state(model, tx, batch, mesh, config.train.ema_decay is not None, config.seed)
  jax.block_until_ready(state)
  print_once(f'initialised in {time.perf_counter() - began:.1f} s')
  if config.train.init_from:
    state = init_from.take(state, config.train.init_from, mesh)
  return state


def _compile(
  train_step: Step,
  state: TrainState,
  batch: Any,
  train: Any,
  logs: Path,
) -> Step:
  print_once('compiling the train step ...')
  began = time.perf_counter()
  lowered = trace_step(train_step, state, batch).lower()
  metrics = lowered.out_info[1]
  if unknown := sorted(set(train.progress_metrics) - set(metrics)):
    raise UserError(
      f'config.train.progress_metrics names {", ".join(unknown)}, but this '
      f'model has the metrics {", ".join(sorted(metrics))}'
    )
  compiled = lowered.compile()
  distributed.meet('compiled')
  print_once(f'compiled in {time.perf_counter() - began:.1f} s')
  if train.profile_at and jax.process_index() == 0:
    return Profiled(compiled, logs, train.profile_at, train.profile_steps)
  return compiled


def _saver(
  checkpoints: Checkpoints,
  config: ml_collections.ConfigDict,
  dataset: data.Dataset,
  writer: Writer,
) -> Callable[[int, TrainState, dict[str, Any]], None]:
  meta = {'config': to_json(config), 'card': dataset.card}

  def save(step: int, state: TrainState, results: dict[str, Any]) -> None:
    numbers = {k: float(v) for k, v in results.items() if not getattr(v, 'ndim', 0)}
    checkpoints.save(step, state, {**meta, 'metrics': numbers})
    writer.publish()

  return save


def _describe(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  dataset: data.Dataset,
  workdir: Path,
  start: int,
) -> None:
  """Prints what will run on what."""
  device = mesh.devices.flat[0].device_kind
  axes = ' x '.join(f'{name}={size}' for name, size in mesh.shape.items())
  size = config.train.batch_size
  print_once(f'{config.name} in {workdir}')
  print_once(f'{mesh.size} devices ({device}), mesh {axes}; precision {config.train.precision}')
  print_once(f'batch {size} = {size / mesh.size:g} per device, in {jax.process_count()} processes')
  views = ', '.join(
    f'{role} {setup.num_examples(dataset, config, view, seq_len):,} ({view})'
    for role, seq_len in (('train', config.data.seq_len), ('valid', 0), ('test', 0))
    if (view := config.data[f'{role}_split'])
  )
  print_once(f'data set {dataset.card["name"]}: {views}')
  for line in _card_lines(dataset.card):
    print_once(f'  {line}')
  print_once(f'from step {start:,} to {config.train.num_steps:,}')


def _card_lines(card: dict[str, Any]) -> list[str]:
  """What the data card says of the records and their origin."""
  fields = ', '.join(f'{k} {v["dtype"]} {v["shape"]}' for k, v in card['fields'].items())
  variant = f', variant {card["variant"]}' if card.get('variant') else ''
  limit = f', first {card["limit"]} of each split' if card.get('limit') else ''
  return [
    f'{fields}; version {card["version"]}{variant}{limit}; build {card["build_id"][:12]}',
    f'source: {card["source"]}',
    f'licence: {card["licence"]}',
  ]


def _record(
  state: TrainState,
  config: ml_collections.ConfigDict,
  writer: Writer,
  workdir: Path,
  start: int,
) -> None:
  """Writes the settings, and once the table of parameters."""
  writer.hparams(flatten(to_json(config)))
  count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  print(f'{count:,} parameters')
  table = workdir / 'train' / 'parameters.txt'
  if not table.exists():
    # Placement and statistics are left out: they would move every array to the host.
    text = parameter_overview.get_parameter_overview(state.params, include_stats=False)
    table.write_text(text + '\n')
    writer.text(start, 'parameters', f'```\n{text}\n```')
