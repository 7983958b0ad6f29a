"""Restores the weights of a trained run, and nothing that only training needs."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
import ml_collections
import numpy as np

from hvae_tpu import data, models
from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.runs import checkpoints
from hvae_tpu.runs.workdir import CONFIG, from_json, stored_config, to_json
from hvae_tpu.storage import buckets


@dataclasses.dataclass(frozen=True)
class RestoredState:
  """The parts of a train state that inference needs.

  Attributes:
    step: number of updates that training had attempted.
    params: raw parameters; None if they were not asked for.
    ema_params: their moving average; None if it was not asked for, or the run keeps none.
    model_state: whatever else the model persists.
  """

  step: int
  params: Any
  ema_params: Any
  model_state: Any


@dataclasses.dataclass(frozen=True)
class LoadedRun:
  """One set of weights of a run, and the model that they belong to.

  Attributes:
    workdir: work directory of the run.
    model: built for inference on the devices of the mesh.
    step: number of updates that training had attempted.
    weights: 'ema' or 'raw', the set of weights.
    params: parameters of that set.
    model_state: whatever else the model persists.
    config: the stored config of the run, or the one of the command.
    mesh: mesh of devices that the weights lie on.
    meta: record beside the checkpoint: `config`, `card`, `metrics`.
  """

  workdir: Path
  model: Any
  step: int
  weights: str
  params: Any
  model_state: Any
  config: ml_collections.ConfigDict
  mesh: Mesh
  meta: dict[str, Any]

  @property
  def checkpoint_tag(self) -> str:
    """Name of the weights in file names, '<step>-<weights>'."""
    return f'{self.step}-{self.weights}'

  def view_tag(self, view: str) -> str:
    """Returns the name of results on a view in file names, '<view>-<step>-<weights>'."""
    return f'{view.replace("/", "-")}-{self.checkpoint_tag}'

  def origin(self) -> dict[str, Any]:
    """Describes the weights, for files of results: run, step, kind of weights, SHA-256."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((self.params, self.model_state)):
      digest.update(np.ascontiguousarray(sharding.to_host(leaf)))
    return {
      'run': str(self.workdir),
      'step': int(self.step),
      'weights': self.weights,
      'model': self.config.model.name,
      'sha256': digest.hexdigest(),
    }

  def about(self, view: str) -> dict[str, Any]:
    """Describes results on a view: `origin` of the weights, name of the data set, view."""
    return {'origin': self.origin(), 'data': self.config.data.name, 'view': view}

  def check_origin(self, stored: dict[str, Any], what: str, remedy: str) -> None:
    """Raises UserError if `what`, whose `origin` is `stored`, was made with other weights."""
    origin = self.origin()
    if stored.get('sha256') != origin['sha256']:
      name = lambda o: (
        f'{o.get("model")} of {o.get("run")}, step {o.get("step")}, {o.get("weights")}'
      )
      raise UserError(f'{what} belongs to {name(stored)}, not to {name(origin)}; {remedy}')


@dataclasses.dataclass(frozen=True)
class Run:
  """A run with the sets of weights that were asked for.

  Attributes:
    state: the weights; for the other attributes see `LoadedRun`.
  """

  workdir: Path
  model: Any
  state: RestoredState
  config: ml_collections.ConfigDict
  mesh: Mesh
  meta: dict[str, Any]

  def select(self, weights: str) -> LoadedRun:
    """Returns the run with one set of weights: 'raw' or 'ema' (raw ones where it keeps none)."""
    state = self.state
    raw = weights == 'raw' or state.ema_params is None
    return LoadedRun(
      workdir=self.workdir,
      model=self.model,
      step=state.step,
      weights=weights,
      params=state.params if raw else state.ema_params,
      model_state=state.model_state,
      config=self.config,
      mesh=self.mesh,
      meta=self.meta,
    )


def open_run(
  workdir: str | Path,
  checkpoint: str = 'latest',
  config: ml_collections.ConfigDict | None = None,
  weights: tuple[str, ...] = ('ema',),
) -> Run:
  """Restores sets of weights of a run, and builds its model.

  Args:
    workdir: work directory of the run.
    checkpoint: 'latest', 'best', a step, or another work directory (its latest).
    config: the config of the command; None takes the stored one.
    weights: 'ema', 'raw' or both. A run that keeps no average has only raw weights.

  Raises:
    UserError: no such run or checkpoint, or a config of another model.
  """
  if buckets.as_path(checkpoint).is_dir():
    workdir, checkpoint = checkpoint, 'latest'
  workdir = buckets.as_path(workdir)
  stored = stored_config(workdir)
  if stored is None:
    raise UserError(f'{workdir} has no {CONFIG}: no run was started there')
  if config is None:
    config = from_json(stored)
    config.mesh.update(data=-1, fsdp=1, spatial=1)  # this machine need not be the one that trained
  check_model(workdir, stored, config)
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, spatial=config.mesh.spatial)
  model = models.create(config.model.to_dict(), sharding.platform(mesh), differentiated=False)
  store = checkpoints.Checkpoints(workdir, read_only=True)
  try:
    named = store.resolve(checkpoint, config.train.best_metric)
    step, state = store.restore_undamaged(
      store.steps if checkpoint == 'latest' else [named],
      lambda step: restore_weights(store, step, model, config.data, mesh, weights),
    )
    meta = store.meta(step)
  finally:
    store.close()
  return Run(workdir, model, state, config, mesh, meta)


def check_model(
  source: str | Path, stored: dict[str, Any], config: ml_collections.ConfigDict
) -> None:
  """Raises UserError if the model of a config is not the one in the `stored` config of `source`.

  Prints the changed fields that are allowed to differ: numbers may be of another objective.
  """
  old = models.with_defaults(stored.get('model', {}))
  new = to_json(config)['model']
  changeable = models.changeable_fields(config.model.name)
  differences = {
    k: f'config.model.{k} is {old.get(k)!r} there, {new.get(k)!r} here'
    for k in sorted(old | new)
    if old.get(k) != new.get(k)
  }
  if binding := [text for k, text in differences.items() if k not in changeable]:
    raise UserError(f'{source} holds another model: {"; ".join(binding)}')
  if differences and jax.process_index() == 0:
    print(f'{source} was trained differently: {"; ".join(differences.values())}', flush=True)


def restore_weights(
  store: checkpoints.Checkpoints,
  step: int,
  model: Any,
  section: ml_collections.ConfigDict,
  mesh: Mesh,
  weights: tuple[str, ...],
) -> RestoredState:
  """Restores the named sets of weights of a checkpoint; `section` is `config.data`."""
  batch = data.train_spec(store.meta(step)['card'], section, 1)
  params, model_state = jax.eval_shape(model.init, jax.random.key(0), batch)
  has_average = any(name.startswith('ema_params/') for name in store.shapes(step))
  parts = {'model_state': model_state} if jax.tree.leaves(model_state) else {}
  for name in weights:
    parts['ema_params' if name == 'ema' and has_average else 'params'] = params
  abstract = jax.tree.map(
    lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
    parts,
    sharding.state_shardings(parts, mesh),
  )
  restored = store.restore_part(step, abstract)
  return RestoredState(
    step=step,
    params=restored.get('params'),
    ema_params=restored.get('ema_params'),
    model_state=restored.get('model_state', model_state),
  )
