"""The training loop, for every system."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import Array
import numpy as np

from hvae_tpu.devices.interruption import Interrupted, Interruption
from hvae_tpu.errors import UserError
from hvae_tpu.training.progress import Progress
from hvae_tpu.training.state import TrainState
from hvae_tpu.training.step import Step


def due(done: int, every: int) -> bool:
  return every > 0 and done % every == 0


def summarize(window: list[dict[str, Array]]) -> dict[str, np.ndarray]:
  """Metrics of the steps since the last log -> one number each.

  Means over the finite values, so that one skipped step does not blank a curve; counters and the
  learning rate as they are now; and the largest gradient norm.
  """
  stacked = {k: np.stack([m[k] for m in window]) for k in window[0]}
  latest = ('skipped', 'skipped_in_row', 'learning_rate', 'clock')
  summary = {}
  for name, values in stacked.items():
    finite = np.isfinite(values)
    mean = np.where(finite, values, 0).sum(0) / np.where(finite.any(0), finite.sum(0), np.nan)
    summary[name] = values[-1] if name in latest else mean
  norms = stacked['grad_norm']
  summary['grad_norm_max'] = norms[np.isfinite(norms)].max(initial=0.0)
  return summary


def too_many_skipped(metrics: dict[str, np.ndarray], train: Any) -> str:
  """What to tell when too many updates in a row were skipped; empty otherwise."""
  if not train.max_skipped_in_row or metrics['skipped_in_row'] < train.max_skipped_in_row:
    return ''
  return (
    f'the last {int(metrics["skipped_in_row"])} updates were skipped: mean loss '
    f'{metrics["loss"]:.4g}, gradient norm {metrics["grad_norm"]:.4g} on average and '
    f'{metrics["grad_norm_max"]:.4g} at most, while '
    f'config.train.skip_threshold={train.skip_threshold}. Weights that are not '
    f'updated keep their gradients, so this does not end by itself: raise '
    f'config.train.skip_threshold, or set config.train.max_skipped_in_row=0 to go on'
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
    UserError: `train.max_skipped_in_row` updates in a row were skipped; the state is saved.
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
      progress.line(done, {name: window[name] for name in train.progress_metrics}, rates)
      writer.scalars(done, 'train', {**window, **rates})
      stuck = too_many_skipped(window, train)
      window = []
    interruption.poll()
    with progress.pause():
      try:
        for name, every, run in evaluations:
          if (due(done, every) or (last and every)) and not interruption.requested:
            found = run(state)
            writer.write(done, name, found)
            progress.evaluated(
              done, name, {k: found[k] for k in train.progress_metrics if k in found}
            )
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
