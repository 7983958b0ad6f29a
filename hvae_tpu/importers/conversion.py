"""Imports the weights of another program as a work directory."""

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
from hvae_tpu.importers import FORMATS, import_report, tables
from hvae_tpu.importers.formats import Contents, Format
from hvae_tpu.runs import restore
from hvae_tpu.runs.checkpoints import Checkpoints, path_name
from hvae_tpu.runs.workdir import CONFIG, from_json, store_config, to_json
from hvae_tpu.storage import tensor_files
from hvae_tpu.training import optimizers, setup
from hvae_tpu.training.state import TrainState, abstract_state, fresh_model_state

SECTIONS = ('seed', 'data', 'mesh', 'model', 'optimizer', 'train', 'evals')  # of a config
Tables = Mapping[str, list[tables.Entry]]  # by field of the train state
Fields = Mapping[str, Mapping[str, np.ndarray]]  # field of the train state -> arrays by their names


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
  """Makes a work directory from another program's weights; writes nothing before all is proved.

  Args:
    name: a key of `FORMATS`.
    source: file of the weights.
    workdir: directory of the new run.
    config: config of the weights; None for format hvae_tpu takes the one in the file.
    ema: file of the moving average; '' takes that of the source, or else its weights.
    step: updates that the weights were trained for; None takes the source's number, or else 0.
    verify_examples: number of test examples to evaluate on. The result is bits/dim, or the first
      metric of `import_report.MEASURES` that the model reports.

  Returns:
    The import report, which is also stored and printed.

  Raises:
    UserError: the file, the config or the work directory cannot be used.
  """
  began, workdir = time.perf_counter(), Path(workdir)
  _refuse_used(workdir)
  if name not in FORMATS:
    raise UserError(f'--from={name} must be one of {", ".join(FORMATS)}')
  form = FORMATS[name]
  contents, sources = _read(form, source, ema)
  config = _config_of(name, config, contents, source)
  _check_settings(form, name, config)
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, spatial=config.mesh.spatial)
  model = models.create(config.model.to_dict(), sharding.platform(mesh), differentiated=False)
  form.check(model, contents.meta)
  batch = form.batch(model, contents.meta)
  card = _card(config, batch, contents, required=verify_examples > 0)
  entries = form.tables(model, contents.meta)
  state = _train_state(config, model, batch, mesh, entries, contents, sources)
  step = contents.meta.get('step', 0) if step is None else step
  state = state.replace(step=jax.device_put(jnp.int32(step), state.step.sharding))
  report = {
    'format': name,
    'sources': sources,
    **_prove_round_trip(entries, state, contents.fields),
    'aside': contents.aside,
    'measured': _evaluate(config, model, mesh, state, verify_examples),
    'earlier': contents.meta.get('import'),
  }
  metrics = contents.meta.get('metrics', {})
  meta = {'config': to_json(config), 'card': card, 'metrics': metrics, 'import': report}
  try:
    _write(workdir, config, step, state, meta)
    _check_written(workdir, config, entries, contents.fields)
  except BaseException:
    _remove_run(workdir)
    raise
  for line in import_report.describe(report):
    print(line)
  print(f'wrote {workdir}, step {step:,}, in {time.perf_counter() - began:.1f} s; read back: equal')
  return report


def _refuse_used(workdir: Path) -> None:
  used = [n for n in (CONFIG, 'checkpoints') if (workdir / n).exists()]
  if used or (workdir.exists() and not workdir.is_dir()):
    raise UserError(
      f'--workdir={workdir} holds a run already ({", ".join(used) or "a file"}), which an import '
      f'never overwrites; give a new directory'
    )


def _read(form: Format, source: str, ema: str) -> tuple[Contents, list[dict[str, Any]]]:
  """Returns the weights of one file or two, and the descriptions of the files."""
  sources = []

  def read(path: str, role: str) -> Contents:
    container = tensor_files.read(path)
    sources.append(import_report.source(role, Path(path).name, container))
    try:
      contents = form.contents(container)
    except UserError as error:
      raise UserError(f'{path}: {error}') from error
    if 'params' not in contents.fields:
      raise UserError(f'{path} holds no parameters; give a file of weights')
    return contents

  contents = read(source, 'params')
  if ema:
    if 'ema_params' in contents.fields:
      raise UserError(f'--ema={ema}: {source} has a moving average of its own; leave --ema out')
    average = read(ema, 'ema_params')
    contents.fields['ema_params'] = average.fields['params']
    contents.aside.update({f'{Path(ema).name}: {path}': n for path, n in average.aside.items()})
  return contents, sources


def _config_of(
  name: str, config: ml_collections.ConfigDict | None, contents: Contents, source: str
) -> ml_collections.ConfigDict:
  """Returns the config of the command line, or the one that came with the weights."""
  stored = contents.meta.get('config')
  if stored is None:
    if config is None:
      raise UserError(f'--from={name} needs --config=configs/<data set>.py of the weights')
    return config
  if missing := [key for key in SECTIONS if key not in stored]:
    raise UserError(f'{source}: the config in it lacks {", ".join(missing)}; export it again')
  if config is None:
    config = from_json(stored)
    config.mesh.update(data=-1, fsdp=1, spatial=1)  # this machine need not be the one that trained
    return config
  restore.check_model(source, stored, config)
  return config


def _check_settings(form: Format, name: str, config: ml_collections.ConfigDict) -> None:
  """Refuses an activation or a likelihood of another format, which arrays alone do not show."""
  wrong = {k: v for k, v in form.settings.items() if config.model.get(k) != v}
  if wrong:
    raise UserError(
      f'--from={name} brings models with '
      + ', '.join(f'config.model.{k}={v!r} (not {config.model.get(k)!r})' for k, v in wrong.items())
      + '; set them on the command line'
    )


def _card(
  config: ml_collections.ConfigDict, batch: Any, contents: Contents, required: bool
) -> dict[str, Any]:
  """Returns the data card: of the built data set, of the source, or of the shapes of a batch."""
  fields = {
    k: {'shape': list(v.shape[1:]), 'dtype': np.dtype(v.dtype).name} for k, v in batch.items()
  }
  try:
    card = data.open_dataset(config.data.name, config.data.root).card
  except UserError:
    if required:
      raise
    return contents.meta.get('card', {'name': config.data.name, 'fields': fields})
  for key in config.data.fields:
    stored, needed = (
      _describe_field(key, known.get(key, {})) for known in (card['fields'], fields)
    )
    if stored != needed:
      raise UserError(
        f'data set {config.data.name} has {key} {stored}, the weights take {needed}; use the '
        f'--config of the weights'
      )
  return card


def _describe_field(name: str, field: dict[str, Any]) -> str:
  """Returns type and shape; for a video those of a frame, as records hold any number of frames."""
  shape = field.get('shape')
  return f'{field.get("dtype")} {shape[1:] if shape and name == "video" else shape}'


def _train_state(
  config: ml_collections.ConfigDict,
  model: Any,
  batch: Any,
  mesh: Mesh,
  entries: Tables,
  contents: Contents,
  sources: list[dict[str, Any]],
) -> TrainState:
  """Returns the imported weights, with a fresh optimizer."""
  has_average = config.train.ema_decay is not None
  if not has_average and 'ema_params' in contents.fields:
    raise UserError(
      'the source has a moving average, but config.train.ema_decay is None; set it, or leave the '
      'average out'
    )
  tx, _ = optimizers.create(config.optimizer, config.train.num_steps)
  abstract = abstract_state(model, tx, batch, mesh, has_average)
  shardings = lambda tree: jax.tree.map(lambda leaf: leaf.sharding, tree)

  def take(field: str, part: Any = None) -> Any:
    file = next((s['file'] for s in sources if s['role'] == field), sources[0]['file'])
    tree = tables.import_params(_table(entries, field), contents.fields.get(field, {}), file)
    _refuse_not_finite(tree, field, file)
    return jax.device_put(tree, shardings(getattr(abstract, field) if part is None else part))

  params = take('params')
  ema_params = take('ema_params') if 'ema_params' in contents.fields else params
  zero = lambda leaf: jax.device_put(jnp.zeros(leaf.shape, leaf.dtype), leaf.sharding)
  return TrainState(
    step=zero(abstract.step),
    skipped=zero(abstract.skipped),
    skipped_in_row=zero(abstract.skipped_in_row),
    params=params,
    ema_params=ema_params if has_average else None,
    model_state=_model_state(model, batch, abstract.model_state, entries, take),
    opt_state=jax.jit(tx.init, out_shardings=shardings(abstract.opt_state))(params),
  )


def _table(entries: Tables, field: str) -> list[tables.Entry]:
  return entries['params' if field == 'ema_params' else field]


def _model_state(model: Any, batch: Any, abstract: Any, entries: Tables, take: Callable) -> Any:
  """Returns the source's part of the model's state, and the rest fresh."""
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


def _prove_round_trip(entries: Tables, state: TrainState, fields: Fields) -> dict[str, int]:
  """Exports all weights to the source's names and layouts; counts those equal bit for bit: all.

  Raises:
    RuntimeError: a tensor differs; a defect of the table.
  """
  tensors = numbers = 0
  for field, source in fields.items():
    table = _table(entries, field)
    tree = tables.part(table, getattr(state, field))
    exported = tables.export_params(table, jax.device_get(tree))
    for key, tensor in source.items():
      if not tables.identical(exported[key], tensor):
        raise RuntimeError('the imported weights, exported again, are not those of the source')
      tensors, numbers = tensors + 1, numbers + tensor.size
  return {'tensors': tensors, 'numbers': numbers}


def _evaluate(
  config: ml_collections.ConfigDict, model: Any, mesh: Mesh, state: TrainState, count: int
) -> dict[str, Any] | None:
  """Computes bits/dim, or its replacement, on the first `count` examples of the test view."""
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
  """Writes checkpoint and config.json."""
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


def _remove_run(workdir: Path) -> None:
  """Removes the files of `_write`, which would stand in the way of the next import."""
  shutil.rmtree(workdir / 'checkpoints', ignore_errors=True)
  with contextlib.suppress(OSError):
    (workdir / CONFIG).unlink()


def _check_written(
  workdir: Path, config: ml_collections.ConfigDict, entries: Tables, fields: Fields
) -> None:
  """Reads the checkpoint as `--mode=eval` does, and compares it with the source."""
  run = restore.open_run(workdir, config=config, weights=('ema', 'raw'))
  _prove_round_trip(entries, run.state, fields)
