"""Programs of a run, traced for described devices: the same functions that training runs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
import ml_collections
import numpy as np

from hvae_tpu import models
from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.evals import elbo
from hvae_tpu.training import optimizers, setup
from hvae_tpu.training.state import abstract_state
from hvae_tpu.training.step import trace_step


class Traced(NamedTuple):
  """Program before its compilation.

  Attributes:
    trace: traced program of JAX; it holds the jaxpr and can be lowered.
    state: abstract train state with shardings.
    batch_size: global batch size.
    mesh: mesh of the described devices.
    model: model with its `auto` values resolved for these devices.
    beside: further abstract arrays that stay on the devices while the program runs.
  """

  trace: Any
  state: Any
  batch_size: int
  mesh: Mesh
  model: Any
  beside: Any = ()


def train_program(config: ml_collections.ConfigDict, devices: list[jax.Device]) -> Traced:
  """Traces the train step, as `--mode=train` runs it."""
  mesh = _mesh(config, devices)
  size = config.train.batch_size
  model, tx, step = setup.train_step(config, mesh)
  batch = _sharded(batch_shapes(config, size, config.data.seq_len), mesh)
  state = abstract_state(model, tx, batch, mesh, config.train.ema_decay is not None)
  return Traced(trace_step(step, state, batch), state, size, mesh, model)


def eval_program(config: ml_collections.ConfigDict, devices: list[jax.Device]) -> Traced:
  """Traces one batch of the evaluation `elbo`, as it runs between training steps."""
  mesh = _mesh(config, devices)
  size = config.evals.batch_size
  model = models.create(config.model.to_dict(), sharding.platform(mesh), differentiated=False)
  tx, _ = optimizers.create(config.optimizer, config.train.num_steps)
  shapes = batch_shapes(config, size, config.data.eval_seq_len or config.data.seq_len)
  batch = _sharded({**shapes, 'mask': jax.ShapeDtypeStruct((size,), bool)}, mesh)
  state = abstract_state(model, tx, shapes, mesh, ema=config.train.ema_decay is not None)
  scalar = lambda dtype: jax.ShapeDtypeStruct((), dtype, sharding=sharding.replicated(mesh))
  trace = elbo.program(model).trace(
    state.params, state.model_state, batch, scalar(np.int32), scalar(jax.random.key(0).dtype)
  )
  read = state.replace(ema_params=None, opt_state=None)
  return Traced(trace, read, size, mesh, model, beside=(state.ema_params, state.opt_state))


PROGRAMS: dict[str, Callable[..., Traced]] = {'train': train_program, 'eval': eval_program}


def check(config: ml_collections.ConfigDict, devices: list[jax.Device]) -> None:
  """Raises UserError if training would refuse these devices; compiles nothing."""
  mesh = _mesh(config, devices)
  sharding.check_batch_size(config.train.batch_size, mesh)
  sharding.check_batch_size(config.evals.batch_size, mesh, 'evals.batch_size')


def batch_shapes(
  config: ml_collections.ConfigDict, batch_size: int, seq_len: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of a batch from the config alone; the data set need not be present.

  Raises:
    UserError: a field has a shape that does not follow from the config.
  """
  model = config.model
  side, channels = model.image_size, model.image_channels
  shapes = {
    'image': (side, side, channels),
    'segmentation': (side, side, 1),
    'video': (seq_len, side, side, channels),
  }
  if 'video' in config.data.fields and not seq_len:
    raise UserError('config.data.seq_len=0 takes whole videos; give a number of frames to plan for')
  if unknown := sorted(set(config.data.fields) - set(shapes)):
    raise UserError(
      f'config.data.fields has {", ".join(unknown)}, whose shape only the data set knows; a plan '
      f'can be made of {", ".join(shapes)}'
    )
  return {
    name: jax.ShapeDtypeStruct((batch_size, *shapes[name]), np.uint8) for name in config.data.fields
  }


def _sharded(batch: Any, mesh: Mesh) -> Any:
  """Adds the shardings of a batch to its shapes."""
  place = lambda s: sharding.batch_sharding(mesh, s.shape)
  return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place(s)), batch)


def _mesh(config: ml_collections.ConfigDict, devices: list[jax.Device]) -> Mesh:
  sizes = config.mesh
  return sharding.make_mesh(sizes.data, sizes.fsdp, devices, sizes.spatial)
