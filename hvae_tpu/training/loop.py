"""The training loop, for every system."""

from collections.abc import Callable, Iterator
from typing import Any

from jax import Array

from hvae_tpu.devices.interruption import Interrupted, Interruption
from hvae_tpu.training.metrics_log import MetricsLog
from hvae_tpu.training.progress import Progress
from hvae_tpu.training.state import TrainState
from hvae_tpu.training.step import Step

Evaluation = tuple[str, int, Callable[[TrainState], dict[str, Any]]]  # name, every, run


def loop(
  state: TrainState,
  train_step: Step,
  batches: Iterator[dict[str, Array]],
  train: Any,
  *,
  start: int,
  evaluations: list[Evaluation],
  save: Callable[[int, TrainState, dict[str, Any]], None],
  diagnose: Callable[[int, int, TrainState], None],
  writer: Any,
  interruption: Interruption,
) -> TrainState:
  """Trains from step `start` to `train.num_steps`, or until it is interrupted.

  Args:
    state: on its devices; donated.
    train_step: compiled.
    batches: training batches from step `start` on, on their devices.
    train: `config.train`.
    start: updates attempted so far.
    evaluations: (name, steps between two runs, `run(state)`); all also run after the last step.
    save: starts saving (step, state, newest results); called when due, at the end, when
      interrupted, and before an error is raised.
    diagnose: see `MetricsLog`.
    writer: `metric_writer.Writer` of the run.
    interruption: asked after every step.

  Raises:
    UserError: `train.max_skipped_in_row` consecutive updates were skipped.
  """
  progress = Progress(start, train)
  log = MetricsLog(train, writer, progress, diagnose)
  for done in range(start + 1, train.num_steps + 1):
    with progress.input_wait():
      batch = next(batches)
    state, metrics = train_step(state, batch)
    log.add(metrics)
    last = done == train.num_steps
    error = log.write(done, state) if last or is_due(done, train.log_every) else None
    interruption.poll()
    with progress.pause():
      due = [e for e in evaluations if is_due(done, e[1]) or (last and e[1])]
      results, failure = _evaluate(due, done, state, writer, progress, interruption)
      error = failure or error
      if last or error or interruption.requested or is_due(done, train.save_every):
        save(done, state, results)
    if error:
      raise error
    if interruption.requested:
      break
  return state


def is_due(done: int, every: int) -> bool:
  """Whether something that happens every `every` steps happens after `done` steps; 0: never."""
  return every > 0 and done % every == 0


def _evaluate(
  evaluations: list[Evaluation],
  done: int,
  state: TrainState,
  writer: Any,
  progress: Progress,
  interruption: Interruption,
) -> tuple[dict[str, Any], Exception | None]:
  """Runs evaluations, and writes what they return.

  Returns:
    Results by `<evaluation>/<name>`, and the error that ended the evaluations, if any.
  """
  results = {}
  try:
    for name, _, run in evaluations:
      if interruption.requested:
        break
      numbers = run(state)
      writer.write(done, name, numbers)
      progress.evaluated(done, name, numbers)
      results |= {f'{name}/{key}': value for key, value in numbers.items()}
  except Interrupted:
    pass
  except Exception as error:
    return results, error
  return results, None
