"""The train step and the loop around it, for every system."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np
import optax

from hvae_tpu import optimizers, sharding
from hvae_tpu.errors import UserError
from hvae_tpu.interruption import Interrupted, Interruption
from hvae_tpu.progress import Progress
from hvae_tpu.state import TrainState

CLOCKS = ('tried', 'applied')
Step = Callable[[TrainState, dict[str, Array]], tuple[TrainState, dict[str, Array]]]


def step_key(seed: int, step: Array | int) -> Array:
  """The random key of the update that turns state `step` into `step + 1`."""
  return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), step)


def make_train_step(
  model: Any,
  tx: optax.GradientTransformation,
  learning_rate: Callable[[Array], Array],
  *,
  seed: int,
  clock: str = 'tried',
  ema_decay: float | None = None,
  drop_above: float = np.inf,
  skip_advances_step: bool = False,
) -> Step:
  """One update, kept or dropped whole.

  An update whose loss is not finite, or whose gradient norm is not below `drop_above`, changes
  nothing but the counters: not the moments, not the average, not the model's state.

  Args:
    model: a `models.protocol.Model`.
    tx: from gradients to updates before the learning rate.
    learning_rate: of the clock.
    seed: of the run; the key of a step is folded from it and the step.
    clock: what schedules count: updates `tried` or `applied`.
    ema_decay: of the average of the parameters; None keeps none.
    drop_above: threshold of the global gradient norm, in the scale of the model's loss.
    skip_advances_step: dropped updates still count for the optimizer's bias correction, as in
      vdvae-jax.

  Returns:
    `step(state, batch) -> (state, metrics)`; metrics are batch means, `[]` or `[L]`.

  Raises:
    UserError: an unknown clock.
  """
  if clock not in CLOCKS:
    raise UserError(f'config.train.clock={clock!r} must be one of {", ".join(CLOCKS)}')

  def step(state: TrainState, batch: dict[str, Array]) -> tuple[TrainState, dict[str, Array]]:
    rng = step_key(seed, state.step)
    now = state.step - (state.dropped if clock == 'applied' else 0)
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
    ok = jnp.isfinite(loss) & (norm < drop_above)  # False for NaN
    kept = jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, state)
    if skip_advances_step:
      kept = kept.replace(opt_state=optimizers.advance_counts(opt_state, kept.opt_state))
    dropped = (~ok).astype(jnp.int32)
    kept = kept.replace(
      step=state.step + 1,
      dropped=state.dropped + dropped,
      dropped_in_row=(state.dropped_in_row + 1) * dropped,
    )
    means = {k: m.mean(0) if m.ndim else m for k, m in metrics.items()}
    return kept, {
      'loss': loss,
      **means,
      'grad_norm': norm,
      'learning_rate': rate,
      'clock': now,
      'dropped': kept.dropped,
      'dropped_in_row': kept.dropped_in_row,
    }

  return step


def _average(average: Any, params: Any, decay: float | None) -> Any:
  if decay is None:
    return None
  # The rate is rounded to float32 before it is taken from 1, as the reference does.
  decay = np.float32(decay)
  return jax.tree.map(lambda a, p: a * decay + p * (1 - decay), average, params)


def trace_step(step: Step, state: TrainState, batch: dict[str, Array]) -> Any:
  """Traces the step, to be lowered for where `state` and `batch` lie; the state is donated.

  Both may be abstract (`ShapeDtypeStruct` with shardings), also on devices that are not there.
  """
  placements = jax.tree.map(lambda leaf: leaf.sharding, state)
  everywhere = sharding.replicated(jax.tree.leaves(placements)[0].mesh)
  jitted = jax.jit(step, donate_argnums=0, out_shardings=(placements, everywhere))
  with jax.set_mesh(everywhere.mesh):  # layers look for its axes
    return jitted.trace(state, batch)


def due(done: int, every: int) -> bool:
  return every > 0 and done % every == 0


def summarize(window: list[dict[str, Array]]) -> dict[str, np.ndarray]:
  """Metrics of the steps since the last log -> one number each.

  Means over the finite values, so that one dropped step does not blank a curve; counters and the
  learning rate as they are now; and the largest gradient norm.
  """
  stacked = {k: np.stack([m[k] for m in window]) for k in window[0]}
  latest = ('dropped', 'dropped_in_row', 'learning_rate', 'clock')
  summary = {}
  for name, values in stacked.items():
    finite = np.isfinite(values)
    mean = np.where(finite, values, 0).sum(0) / np.where(finite.any(0), finite.sum(0), np.nan)
    summary[name] = values[-1] if name in latest else mean
  norms = stacked['grad_norm']
  summary['grad_norm_max'] = norms[np.isfinite(norms)].max(initial=0.0)
  return summary


def dropping_without_end(metrics: dict[str, np.ndarray], train: Any) -> str:
  """What to tell when too many updates in a row were dropped; empty otherwise."""
  if not train.max_dropped_in_row or metrics['dropped_in_row'] < train.max_dropped_in_row:
    return ''
  return (
    f'the last {int(metrics["dropped_in_row"])} updates were dropped: mean loss '
    f'{metrics["loss"]:.4g}, gradient norm {metrics["grad_norm"]:.4g} on average and '
    f'{metrics["grad_norm_max"]:.4g} at most, while config.train.drop_above={train.drop_above}. '
    f'Weights that are not updated keep their gradients, so this does not end by itself: raise '
    f'config.train.drop_above, or set config.train.max_dropped_in_row=0 to go on'
  )


def loop(
  state: TrainState,
  train_step: Step,
  batches: Iterator[dict[str, Array]],
  train: Any,
  *,
  start: int,
  evaluations: list[tuple[str, int, Callable[[TrainState], dict[str, Any]]]],
  save: Callable[[int, TrainState, dict[str, Any]], None],
  diagnose: Callable[[int, int, TrainState], None],
  writer: Any,
  progress: Progress,
  interruption: Interruption,
) -> TrainState:
  """Trains from step `start` to `train.num_steps`, or until it is interrupted.

  Args:
    state: on its devices; donated.
    train_step: compiled.
    batches: of the steps from `start` on, on their devices.
    train: `config.train`.
    evaluations: (name, every how many steps, `run(state)`); also run after the last step.
    save: starts saving step, state and the newest results; called when due, at the end and when
      interrupted.
    diagnose: told the first step whose loss is not finite, its clock, and the state at the log
      after it.
    writer: `writing.Writer`.

  Raises:
    UserError: `train.max_dropped_in_row` updates in a row were dropped; the state is saved.
  """
  window, stuck = [], ''
  for done in range(start + 1, train.num_steps + 1):
    progress.waiting()
    batch = next(batches)
    progress.arrived()
    state, metrics = train_step(state, batch)
    window.append(metrics)
    results = {}
    last = done == train.num_steps
    if due(done, train.log_every) or last:
      steps = jax.device_get(window)
      if bad := [i for i, m in enumerate(steps) if not np.isfinite(m['loss'])]:
        diagnose(done - len(steps) + bad[0], int(steps[bad[0]]['clock']), state)
      window = summarize(steps)
      rates = progress.rates(done)
      progress.line(done, {name: window[name] for name in train.progress}, rates)
      writer.scalars(done, 'train', {**window, **rates})
      stuck = dropping_without_end(window, train)
      window = []
    interruption.poll()
    with progress.pause():
      try:
        for name, every, run in evaluations:
          if (due(done, every) or (last and every)) and not interruption.requested:
            found = run(state)
            writer.write(done, name, found)
            progress.evaluated(done, name, {k: found[k] for k in train.progress if k in found})
            results |= {f'{name}/{key}': value for key, value in found.items()}
      except Interrupted:
        pass
      except Exception:
        save(done, state, results)
        raise
      if due(done, train.save_every) or last or stuck or interruption.requested:
        save(done, state, results)
    if stuck:
      raise UserError(stuck)
    if interruption.requested:
      break
  return state
