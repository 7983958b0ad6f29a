"""Imports foreign weights as a work directory."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
from pathlib import Path
import shutil
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections
import numpy as np

from hvae_tpu import data, evals, models
from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.importers import FORMATS, import_report, tables, trees
from hvae_tpu.runs import restore
from hvae_tpu.runs.checkpoints import Checkpoints, path_name
from hvae_tpu.runs.workdir import CONFIG, from_json, store_config, to_json
from hvae_tpu.storage import tensor_files
from hvae_tpu.training import optimizers, setup
from hvae_tpu.training.state import TrainState, abstract_state, fresh_model_state

SECTIONS = ('seed', 'data', 'mesh', 'model', 'optimizer', 'train', 'evals')  # of a config
Fields = dict[str, dict[str, np.ndarray]]  # of the train state -> arrays by the source's names


def import_run(
  name: str,
  source: str,
  workdir: str | Path,
  config: ml_collections.ConfigDict | None,
  *,
  ema: str = '',
  step: int | None = None,
  verify_examples: int = 0,
) -> dict[str, Any]:
  """Makes a work directory of foreign weights; nothing is written before all is proved.

  Args:
    name: a key of `FORMATS`.
    source: file of the weights.
    workdir: of the new run.
    config: of the weights; None for the format hvae_tpu takes the one in the file.
    ema: file of the moving average; '' takes that of the source, or else its weights.
    step: updates that the weights were trained for; None: what the source says, or else 0.
    verify_examples: number of test examples to measure bits/dim on, or the first of
      `verdict.MEASURES` that the model reports.

  Returns:
    The verdict, which is also stored and printed.

  Raises:
    UserError: the file, the config or the work directory is not fit for it.
  """
  began, workdir = time.perf_counter(), Path(workdir)
  _refuse_used(workdir)
  if name not in FORMATS:
    raise UserError(f'--from={name} must be one of {", ".join(FORMATS)}')
  form = FORMATS[name]
  found, sources = _read(form, name, source, ema)
  config = _config(name, config, found, source)
  _check_settings(form, name, config)
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, spatial=config.mesh.spatial)
  model = models.create(config.model.to_dict(), sharding.platform(mesh), differentiated=False)
  batch = form.example(model, found)
  card = _card(config, batch, found, required=verify_examples > 0)
  entries = form.field_tables(model, batch)
  state = _state(config, model, batch, mesh, entries, found, sources)
  step = found.meta.get('step', 0) if step is None else step
  state = state.replace(step=jax.device_put(jnp.int32(step), state.step.sharding))
  verdict = {
    'format': name,
    'sources': sources,
    **_prove_round_trip(entries, state, found.fields),
    'aside': found.aside,
    'measured': _measure(config, model, mesh, state, verify_examples),
    'earlier': found.meta.get('import'),
  }
  metrics = found.meta.get('metrics', {})
  meta = {'config': to_json(config), 'card': card, 'metrics': metrics}
  try:
    _write(workdir, config, step, state, {**meta, 'import': verdict})
    _check_written(workdir, config, entries, found.fields)
  except BaseException:
    _remove(workdir)
    raise
  for line in import_report.describe(verdict):
    print(line)
  print(f'wrote {workdir}, step {step:,}, in {time.perf_counter() - began:.1f} s; read back: equal')
  return verdict


def _refuse_used(workdir: Path) -> None:
  used = [n for n in (CONFIG, 'checkpoints') if (workdir / n).exists()]
  if used or (workdir.exists() and not workdir.is_dir()):
    raise UserError(
      f'--workdir={workdir} holds a run already ({", ".join(used) or "a file"}), which an import '
      f'never overwrites; give a new directory'
    )


def _read(
  form: Any, name: str, source: str, ema: str
) -> tuple[trees.Contents, list[dict[str, Any]]]:
  """The weights of one file or two, and the descriptions of the files."""

  def read(path: str, role: str) -> trees.Contents:
    held = tensor_files.read(path)
    sources.append(import_report.source(role, Path(path).name, held))
    try:
      contents = form.contents(held)
    except UserError as error:
      raise UserError(f'{path}: {error}') from error
    if 'params' not in contents.fields:
      raise UserError(f'{path} holds no parameters; give a file of weights')
    return contents

  sources = []
  found = read(source, 'params')
  if ema:
    if 'ema_params' in found.fields:
      raise UserError(f'--ema={ema}: {source} has a moving average of its own; leave --ema out')
    average = read(ema, 'ema_params')
    found.fields['ema_params'] = average.fields['params']
    found.aside.update({f'{Path(ema).name}: {path}': n for path, n in average.aside.items()})
  return found, sources


def _config(
  name: str, config: ml_collections.ConfigDict | None, found: trees.Contents, source: str
) -> ml_collections.ConfigDict:
  """The config of the command line, or the one that came with the weights."""
  stored = found.meta.get('config')
  if stored is None:
    if config is None:
      raise UserError(f'--from={name} needs --config=configs/<data set>.py of the weights')
    return config
  if missing := [key for key in SECTIONS if key not in stored]:
    raise UserError(f'{source}: the config in it lacks {", ".join(missing)}; export it again')
  if config is None:
    config = from_json(stored)
    config.mesh.update(data=-1, fsdp=1)  # this machine need not be the one that trained
    return config
  restore.check_model(source, stored, config)
  return config


def _check_settings(form: Any, name: str, config: ml_collections.ConfigDict) -> None:
  """Arrays alone do not tell an activation or a likelihood; the format does."""
  wrong = {k: v for k, v in form.SETTINGS.items() if config.model.get(k) != v}
  if wrong:
    raise UserError(
      f'--from={name} brings models with '
      + ', '.join(f'config.model.{k}={v!r} (not {config.model.get(k)!r})' for k, v in wrong.items())
      + '; set them on the command line'
    )


def _card(
  config: ml_collections.ConfigDict, batch: Any, found: trees.Contents, required: bool
) -> dict[str, Any]:
  """The data card: of the data set if it is built, of the source, or just what a batch is."""
  fields = {
    k: {'shape': list(v.shape[1:]), 'dtype': np.dtype(v.dtype).name} for k, v in batch.items()
  }
  try:
    card = data.open_dataset(config.data.name, config.data.root).card
  except UserError:
    if required:
      raise
    return found.meta.get('card', {'name': config.data.name, 'fields': fields})
  for key in config.data.fields:
    there, here = (_kind(key, known.get(key, {})) for known in (card['fields'], fields))
    if there != here:
      raise UserError(
        f'data set {config.data.name} has {key} {there}, the weights take {here}; use the --config '
        f'of the weights'
      )
  return card


def _kind(name: str, field: dict[str, Any]) -> str:
  """Type and shape of a field; of a video those of a frame, as records hold any number of them."""
  shape = field.get('shape')
  return f'{field.get("dtype")} {shape[1:] if shape and name == "video" else shape}'


def _state(
  config: ml_collections.ConfigDict,
  model: Any,
  batch: Any,
  mesh: Mesh,
  entries: Mapping[str, list[tables.Entry]],
  found: trees.Contents,
  sources: list[dict[str, Any]],
) -> TrainState:
  """The imported weights, with a fresh optimizer."""
  average = config.train.ema_decay is not None
  if not average and 'ema_params' in found.fields:
    raise UserError(
      'the source has a moving average, but config.train.ema_decay is None; set it, or leave the '
      'average out'
    )
  tx, _ = optimizers.create(config.optimizer, config.train.num_steps)
  abstract = abstract_state(model, tx, batch, mesh, average)
  place = lambda tree: jax.tree.map(lambda leaf: leaf.sharding, tree)

  def take(field: str, part: Any = None) -> Any:
    file = next((s['file'] for s in sources if s['role'] == field), sources[0]['file'])
    table = entries['params' if field == 'ema_params' else field]
    tree = tables.import_params(table, found.fields.get(field, {}), file)
    _refuse_not_finite(tree, field, file)
    return jax.device_put(tree, place(getattr(abstract, field) if part is None else part))

  params = take('params')
  ema_params = take('ema_params') if 'ema_params' in found.fields else params
  zero = lambda leaf: jax.device_put(jnp.zeros(leaf.shape, leaf.dtype), leaf.sharding)
  return TrainState(
    step=zero(abstract.step),
    skipped=zero(abstract.skipped),
    skipped_in_row=zero(abstract.skipped_in_row),
    params=params,
    ema_params=ema_params if average else None,
    model_state=_model_state(model, batch, abstract.model_state, entries, take),
    opt_state=jax.jit(tx.init, out_shardings=place(abstract.opt_state))(params),
  )


def _model_state(model: Any, batch: Any, abstract: Any, entries: Any, take: Callable) -> Any:
  """The source's part of the model's state; what it lacks is fresh."""
  if 'model_state' not in entries:
    return abstract
  known = {entry.path[0] for entry in entries['model_state']}
  taken = take('model_state', {name: abstract[name] for name in known})
  rest = {name: part for name, part in abstract.items() if name not in known}
  return {**taken, **fresh_model_state(model, batch, rest)}


def _refuse_not_finite(tree: Any, field: str, file: str) -> None:
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
      raise UserError(
        f'{file}: {field}/{path_name(path)} holds NaN or infinite numbers; use another checkpoint'
      )


def _exported(
  entries: Mapping[str, list[tables.Entry]], state: TrainState, fields: Fields
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """(as exported, as in the source) for every tensor of the source."""
  for field, tensors in fields.items():
    table = entries['params' if field == 'ema_params' else field]
    back = tables.export_params(table, jax.device_get(tables.part(table, getattr(state, field))))
    yield from ((back[key], tensor) for key, tensor in tensors.items())


def _prove_round_trip(
  entries: Mapping[str, list[tables.Entry]], state: TrainState, fields: Fields
) -> dict[str, int]:
  """Exports to the source's names and layouts, and counts what is the same bit for bit: all.

  Raises:
    RuntimeError: a tensor differs; a defect of the table.
  """
  tensors = numbers = 0
  for exported, tensor in _exported(entries, state, fields):
    if not tables.identical(exported, tensor):
      raise RuntimeError('the imported weights, exported again, are not those of the source')
    tensors, numbers = tensors + 1, numbers + tensor.size
  return {'tensors': tensors, 'numbers': numbers}


def _measure(
  config: ml_collections.ConfigDict, model: Any, mesh: Mesh, state: TrainState, count: int
) -> dict[str, Any] | None:
  """Bits/dim, or what stands for it, of the first `count` examples of the test view."""
  if not count:
    return None
  dataset = data.open_dataset(config.data.name, config.data.root)
  batches = setup.eval_batches(dataset, config, mesh, 'test')
  view = setup.view_name(config, 'test')
  weights = 'raw' if config.evals.weights == 'raw' else 'ema'
  section = config.evals.copy_and_resolve_references()
  section.elbo.max_batches = 0  # `count` is the limit

  def first(role: str | None = None) -> Iterator[dict[str, jax.Array]]:
    seen, source = 0, batches(role)
    for batch in source:
      size = len(batch['mask'])
      batch['mask'] = batch['mask'] & (jnp.arange(size) < count - seen)
      yield batch
      seen += size
      if seen >= count:
        source.close()
        return

  with jax.default_matmul_precision(config.train.precision):
    results = evals.create('elbo', section, model, first, config.seed)(state)
  metric = next(name for name in import_report.MEASURES if name in results)
  return {
    'view': view,
    'examples': results['num_examples'],
    'weights': weights,
    metric: float(results[metric]),
    'published': config.evals.get('published_bpd'),
  }


def _write(
  workdir: Path, config: ml_collections.ConfigDict, step: int, state: TrainState, meta: dict
) -> None:
  """Checkpoint and config.json."""
  try:
    checkpoints = Checkpoints(workdir)
    try:
      checkpoints.save(step, state, meta)
      checkpoints.wait()
    finally:
      checkpoints.close()
    store_config(workdir, config)
  except OSError as error:
    raise UserError(f'--workdir={workdir} cannot be written ({error}); give another') from error


def _remove(workdir: Path) -> None:
  """What `_write` wrote; it would stand in the way of the next import."""
  shutil.rmtree(workdir / 'checkpoints', ignore_errors=True)
  with contextlib.suppress(OSError):
    (workdir / CONFIG).unlink()


def _check_written(
  workdir: Path,
  config: ml_collections.ConfigDict,
  entries: Mapping[str, list[tables.Entry]],
  fields: Fields,
) -> None:
  """Reads the checkpoint as `--mode=eval` does, and compares it with the source."""
  opened = restore.open_run(workdir, config=config, weights=('ema', 'raw'))
  _prove_round_trip(entries, opened.state, fields)
