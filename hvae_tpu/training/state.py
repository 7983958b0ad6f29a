"""Everything that training changes, as one pytree."""

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
  """No random key: that of a step is folded from the run's seed and `step`.

  Attributes:
    step: updates attempted; data position, log axis, name of the checkpoint.
    skipped: updates not applied, because the loss or the gradient was not finite or too large.
    skipped_in_row: of those, the latest without an applied one between.
    params, ema_params: float32; ema_params is None where no average is kept.
    model_state: whatever else the model persists.
    opt_state: of the optax chain.
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
  """Shapes, dtypes and placements of the state; compiles and computes nothing."""
  shapes = jax.eval_shape(_initializer(model, tx, ema), jax.random.key(0), batch)
  placements = sharding.state_shardings(shapes, mesh)
  return jax.tree.map(
    lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, placements
  )


def create_state(
  model: Any, tx: optax.GradientTransformation, batch: Any, mesh: Mesh, ema: bool, seed: int
) -> TrainState:
  """A fresh state, made where it will lie: no device ever holds more than its part.

  Args:
    batch: the first training batch; some cells initialise from data.
  """
  abstract = abstract_state(model, tx, batch, mesh, ema)
  placements = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  initialize = jax.jit(_initializer(model, tx, ema), out_shardings=placements)
  return initialize(jax.random.key(seed), batch)


def fresh_model_state(model: Any, batch: Any, abstract: dict[str, Any]) -> dict[str, Any]:
  """The parts of a model's state that `abstract` names, as at step 0, where it says.

  Args:
    batch: shapes of a batch; the parts must not depend on its values.
  """
  if not abstract:
    return {}
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), batch)
  named = lambda rng: {name: model.init(rng, zeros)[1][name] for name in abstract}
  placements = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  return jax.jit(named, out_shardings=placements)(jax.random.key(0))


def _initializer(model: Any, tx: optax.GradientTransformation, ema: bool):
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
  """The parameters that evaluations read: the average where there is one, unless `raw` is asked."""
  if weights == 'raw' or state.ema_params is None:
    return state.params
  return state.ema_params
