"""The train step, for every system."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np
import optax

from hvae_tpu.devices import sharding
from hvae_tpu.training import optimizers
from hvae_tpu.training.state import TrainState

Step = Callable[[TrainState, dict[str, Array]], tuple[TrainState, dict[str, Array]]]


def step_key(seed: int, step: Array | int) -> Array:
  """Returns the random key of the update that turns state `step` into `step + 1`."""
  return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), step)


def make_train_step(
  model: Any,
  tx: optax.GradientTransformation,
  learning_rate: Callable[[Array], Array],
  *,
  seed: int,
  clock: str = 'attempted',
  ema_decay: float | None = None,
  skip_threshold: float = np.inf,
  skip_advances_step: bool = False,
) -> Step:
  """Makes the function of one update, which is applied or skipped whole.

  An update whose loss is not finite, or whose gradient norm is not below `skip_threshold`, changes
  nothing but the counters: not the moments, not the average, not the model's state.

  Args:
    model: a `models.protocol.Model`.
    tx: optax chain from gradients to updates before the learning rate.
    learning_rate: function of the clock.
    seed: seed of the run; the key of a step is folded from it and the step.
    clock: unit of schedules, updates `attempted` or `applied`.
    ema_decay: decay of the average of the parameters; None: no average.
    skip_threshold: largest global norm of the gradient, in the units of the model's loss (often
      nats per dimension).
    skip_advances_step: whether skipped updates count for the optimizer's bias correction, as in
      vdvae-jax.

  Returns:
    `step(state, batch) -> (state, metrics)`; metrics are batch means, `[]` or `[L]`.
  """

  def step(state: TrainState, batch: dict[str, Array]) -> tuple[TrainState, dict[str, Array]]:
    rng = step_key(seed, state.step)
    now = state.step - (state.skipped if clock == 'applied' else 0)
    objective = jax.value_and_grad(model.loss, has_aux=True)
    (loss, (model_state, metrics)), grads = objective(
      state.params, state.model_state, batch, rng=rng, step=now, train=True
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    rate = learning_rate(now)
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
    new = state.replace(
      params=params,
      ema_params=_average(state.ema_params, params, ema_decay),
      model_state=model_state,
      opt_state=opt_state,
    )
    norm = optax.tree.norm(grads)
    ok = jnp.isfinite(loss) & (norm < skip_threshold)  # False for NaN
    result = jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, state)
    if skip_advances_step:
      result = result.replace(opt_state=optimizers.advance_counts(opt_state, result.opt_state))
    skipped = (~ok).astype(jnp.int32)
    result = result.replace(
      step=state.step + 1,
      skipped=state.skipped + skipped,
      skipped_in_row=(state.skipped_in_row + 1) * skipped,
    )
    means = {k: m.mean(0) if m.ndim else m for k, m in metrics.items()}
    return result, {
      'loss': loss,
      **means,
      'grad_norm': norm,
      'learning_rate': rate,
      'clock': now,
      'skipped': result.skipped,
      'skipped_in_row': result.skipped_in_row,
    }

  return step


def _average(average: Any, params: Any, decay: float | None) -> Any:
  """Updates the exponential moving average of the parameters; None without a decay."""
  if decay is None:
    return None
  # The rate is rounded to float32 before it is taken from 1, as the reference does.
  decay = np.float32(decay)
  return jax.tree.map(lambda a, p: a * decay + p * (1 - decay), average, params)


def trace_step(step: Step, state: TrainState, batch: dict[str, Array]) -> Any:
  """Traces the step for the devices of `state` and `batch`; the state is donated.

  Both may be abstract (`ShapeDtypeStruct` with shardings), also on devices that this host lacks.
  """
  placements = jax.tree.map(lambda leaf: leaf.sharding, state)
  everywhere = sharding.replicated(jax.tree.leaves(placements)[0].mesh)
  jitted = jax.jit(step, donate_argnums=0, out_shardings=(placements, everywhere))
  with jax.set_mesh(everywhere.mesh):  # layers look for its axes
    return jitted.trace(state, batch)
