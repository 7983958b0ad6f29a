"""Speed of the training, and the lines that tell it."""

from collections.abc import Iterator, Mapping
import contextlib
import datetime
import sys
import time
from typing import Any

import jax


class Progress:
  """Clock of the training loop: rates since the last report, and the expected end.

  Args:
    start: updates attempted so far.
    train: `config.train`.
  """

  def __init__(self, start: int, train: Any):
    self._train = train
    self._active = jax.process_index() == 0
    self._last_step, self._last_time = start, time.perf_counter()
    self._waited = 0.0
    self._speed = None

  @contextlib.contextmanager
  def input_wait(self) -> Iterator[None]:
    """Counts the time inside the block as waiting for input."""
    began = time.perf_counter()
    yield
    self._waited += time.perf_counter() - began

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """Keeps the time inside the block, for evaluations and saves, out of the rates."""
    began = time.perf_counter()
    try:
      yield
    finally:
      self._last_time += time.perf_counter() - began

  def rates(self, step: int) -> dict[str, float]:
    """Returns `steps_per_second`, `examples_per_second`, `input_wait_fraction` since the last call.

    Args:
      step: updates attempted so far.
    """
    now = time.perf_counter()
    seconds, steps = max(now - self._last_time, 1e-9), step - self._last_step
    speed = steps / seconds
    # Evaluations and the first steps disturb single measurements; the expected end should not jump.
    self._speed = speed if self._speed is None else 0.7 * self._speed + 0.3 * speed
    rates = {
      'steps_per_second': speed,
      'examples_per_second': speed * self._train.batch_size,
      'input_wait_fraction': self._waited / seconds,
    }
    self._last_step, self._last_time, self._waited = step, now, 0.0
    return rates

  def line(self, step: int, metrics: Mapping[str, Any], rates: Mapping[str, float]) -> None:
    """Prints how far training is; on a terminal, over the line before."""
    if not self._active:
      return
    total = self._train.num_steps
    left = datetime.timedelta(seconds=round((total - step) / max(self._speed, 1e-9)))
    speed = f'{rates["steps_per_second"]:.3g} steps/s'
    text = f'step {step:,}/{total:,}{self._shown(metrics)}  {speed}  {left} left'
    terminal = sys.stdout.isatty() and step < total
    print(f'\r\033[K{text}' if terminal else text, end='' if terminal else '\n', flush=True)

  def evaluated(self, step: int, name: str, results: Mapping[str, Any]) -> None:
    """Prints the `train.progress_metrics` among the results of an evaluation, on their own line."""
    text = self._shown(results)
    if self._active and text:
      clear = '\r\033[K' if sys.stdout.isatty() else ''
      print(f'{clear}evaluation {name} at step {step:,}:{text}', flush=True)

  def _shown(self, metrics: Mapping[str, Any]) -> str:
    """The metrics to print that are there, in words."""
    names = (name for name in self._train.progress_metrics if name in metrics)
    return ''.join(f'  {name} {float(metrics[name]):.4g}' for name in names)
