"""Metrics of the steps between two log lines: summary, files, and problems that they show."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.training.progress import Progress
from hvae_tpu.training.state import TrainState

LATEST = ('skipped', 'skipped_in_row', 'learning_rate', 'clock')  # reported as they are now


class MetricsLog:
  """Collects the metrics of steps, and writes their summary.

  Args:
    train: `config.train`.
    writer: `metric_writer.Writer` of the run.
    progress: prints the log line.
    diagnose: called with the first step whose loss is not finite, the clock of its schedules, and
      the state at the log after it.
  """

  def __init__(
    self,
    train: Any,
    writer: Any,
    progress: Progress,
    diagnose: Callable[[int, int, TrainState], None],
  ):
    self._train, self._writer, self._progress = train, writer, progress
    self._diagnose = diagnose
    self._window = []

  def add(self, metrics: dict[str, Array]) -> None:
    """Keeps the metrics of one step, on the devices."""
    self._window.append(metrics)

  def write(self, done: int, state: TrainState) -> UserError | None:
    """Writes and prints the summary of the steps since the last call.

    Args:
      done: updates attempted so far.
      state: after the last of them.

    Returns:
      The error to stop the run with, if too many consecutive updates were skipped.
    """
    steps = jax.device_get(self._window)
    self._window = []
    if bad := [i for i, metrics in enumerate(steps) if not np.isfinite(metrics['loss'])]:
      self._diagnose(done - len(steps) + bad[0], int(steps[bad[0]]['clock']), state)
    summary = summarize(steps)
    rates = self._progress.rates(done)
    self._progress.line(done, summary, rates)
    self._writer.scalars(done, 'train', {**summary, **rates})
    return too_many_skipped(summary, self._train)


def summarize(steps: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Reduces the metrics of several steps to one number each.

  The numbers are means over the finite values, so that one skipped step does not blank a curve.
  Counters and the learning rate are those of the last step. `grad_norm_max` is the largest finite
  gradient norm.
  """
  stacked = {name: np.stack([metrics[name] for metrics in steps]) for name in steps[0]}
  summary = {}
  for name, values in stacked.items():
    finite = np.isfinite(values)
    mean = np.where(finite, values, 0).sum(0) / np.where(finite.any(0), finite.sum(0), np.nan)
    summary[name] = values[-1] if name in LATEST else mean
  norms = stacked['grad_norm']
  summary['grad_norm_max'] = norms[np.isfinite(norms)].max(initial=0.0)
  return summary


def too_many_skipped(summary: dict[str, np.ndarray], train: Any) -> UserError | None:
  """Returns the error to raise if too many consecutive updates were skipped, else None.

  Args:
    summary: result of `summarize`.
    train: `config.train`.
  """
  if not train.max_skipped_in_row or summary['skipped_in_row'] < train.max_skipped_in_row:
    return None
  return UserError(
    f'the last {int(summary["skipped_in_row"])} updates were skipped: mean loss '
    f'{summary["loss"]:.4g}, gradient norm {summary["grad_norm"]:.4g} on average and '
    f'{summary["grad_norm_max"]:.4g} at most, while '
    f'config.train.skip_threshold={train.skip_threshold}. Weights that are not '
    f'updated keep their gradients, so this does not end by itself: raise '
    f'config.train.skip_threshold, or set config.train.max_skipped_in_row=0 to go on'
  )
