"""Restores the weights of a trained run, and nothing that only training needs."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
import ml_collections

from hvae_tpu import data, models
from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.runs import checkpoints
from hvae_tpu.runs.workdir import CONFIG, from_json, stored_config, to_json
from hvae_tpu.storage import buckets
from hvae_tpu.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Run:
  """What `open_run` found.

  Attributes:
    workdir: of the run.
    model: built for inference on the mesh's devices.
    state: `step`, `params` and `ema_params` (each None if not asked for), `model_state`.
    config: of the run as stored, or the one given.
    meta: of the checkpoint: `config`, `card`, `metrics`.
  """

  workdir: Path
  model: Any
  state: TrainState
  config: ml_collections.ConfigDict
  mesh: Mesh
  meta: dict[str, Any]


def open_run(
  workdir: str | Path,
  checkpoint: str = 'latest',
  config: ml_collections.ConfigDict | None = None,
  weights: tuple[str, ...] = ('ema',),
) -> Run:
  """Restores the weights of a run, and nothing that only training needs.

  Args:
    workdir: of the run.
    checkpoint: 'latest', 'best', a step, or another work directory (its latest).
    config: of the command line; None takes the stored one.
    weights: 'ema', 'raw' or both. A run that keeps no average has only raw ones.

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
    step, state = store.restore_newest(
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
  """Raises UserError if the config is of another model than the `stored` one of `source`.

  Fields that may differ, and do, are told: numbers may be of another objective.
  """
  old = models.with_defaults(stored.get('model', {}))
  new = to_json(config)['model']
  changeable = models.changeable_fields(config.model.name)
  told = {
    k: f'config.model.{k} is {old.get(k)!r} there, {new.get(k)!r} here'
    for k in sorted(old | new)
    if old.get(k) != new.get(k)
  }
  if binding := [text for k, text in told.items() if k not in changeable]:
    raise UserError(f'{source} holds another model: {"; ".join(binding)}')
  if told and jax.process_index() == 0:
    print(f'{source} was trained differently: {"; ".join(told.values())}', flush=True)


def restore_weights(
  store: checkpoints.Checkpoints,
  step: int,
  model: Any,
  section: ml_collections.ConfigDict,
  mesh: Mesh,
  weights: tuple[str, ...],
) -> TrainState:
  """The parts of a state that inference needs; see `Run.state`. `section` is `config.data`."""
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
  found = store.restore_part(step, abstract)
  return TrainState(
    step=step,
    skipped=None,
    skipped_in_row=None,
    params=found.get('params'),
    ema_params=found.get('ema_params'),
    model_state=found.get('model_state', model_state),
    opt_state=None,
  )
