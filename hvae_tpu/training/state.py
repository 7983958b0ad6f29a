"""The train state: everything that training changes, as one pytree."""

from collections.abc import Callable
from typing import Any

import flax
import jax
from jax import Array
import jax.numpy as jnp
from jax.sharding import Mesh
import optax

from hvae_tpu.devices import sharding


@flax.struct.dataclass
class TrainState:
  """The train state. It holds no random key: `step_key` folds one from the seed and `step`.

  Attributes:
    step: updates attempted; data position, log axis, name of the checkpoint.
    skipped: updates not applied, since the loss was not finite or the gradient too large.
    skipped_in_row: skipped updates since the last applied one.
    params: float32.
    ema_params: average of the parameters, float32; None without an average.
    model_state: whatever else the model persists.
    opt_state: state of the optax chain.
  """

  step: Array
  skipped: Array
  skipped_in_row: Array
  params: Any
  ema_params: Any
  model_state: Any
  opt_state: Any


def abstract_state(
  model: Any, tx: optax.GradientTransformation, batch: Any, mesh: Mesh, ema: bool
) -> TrainState:
  """Returns shapes, dtypes and placements of the state; compiles and computes nothing."""
  shapes = jax.eval_shape(_initializer(model, tx, ema), jax.random.key(0), batch)
  placements = sharding.state_shardings(shapes, mesh)
  return jax.tree.map(
    lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, placements
  )


def create_state(
  model: Any, tx: optax.GradientTransformation, batch: Any, mesh: Mesh, ema: bool, seed: int
) -> TrainState:
  """Makes a fresh state on its devices: no device ever holds more than its part.

  Args:
    model: a `models.protocol.Model`.
    tx: optax chain.
    batch: the first training batch; some cells initialise from data.
    mesh: mesh of the devices.
    ema: whether to keep an average of the parameters.
    seed: seed of the initial weights.
  """
  abstract = abstract_state(model, tx, batch, mesh, ema)
  placements = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  initialize = jax.jit(_initializer(model, tx, ema), out_shardings=placements)
  return initialize(jax.random.key(seed), batch)


def fresh_model_state(model: Any, batch: Any, abstract: dict[str, Any]) -> dict[str, Any]:
  """Makes some parts of a model's state, as at step 0.

  Args:
    model: a `models.protocol.Model`.
    batch: shapes of a batch; the parts must not depend on its values.
    abstract: the parts by name, with the placement of every array.
  """
  if not abstract:
    return {}
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), batch)
  initialize = lambda rng: {name: model.init(rng, zeros)[1][name] for name in abstract}
  placements = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  return jax.jit(initialize, out_shardings=placements)(jax.random.key(0))


def _initializer(
  model: Any, tx: optax.GradientTransformation, ema: bool
) -> Callable[[Array, Any], TrainState]:
  """Returns the function (key, batch) -> fresh state."""

  def initialize(rng, batch):
    params, model_state = model.init(rng, batch)
    zero = lambda: jnp.zeros((), jnp.int32)
    return TrainState(
      step=zero(),
      skipped=zero(),
      skipped_in_row=zero(),
      params=params,
      ema_params=jax.tree.map(jnp.copy, params) if ema else None,
      model_state=model_state,
      opt_state=tx.init(params),
    )

  return initialize


def eval_params(state: TrainState, weights: str = 'ema') -> Any:
  """Returns the parameters for evaluations: the average if there is one and `weights` is 'ema'."""
  if weights == 'raw' or state.ema_params is None:
    return state.params
  return state.ema_params
