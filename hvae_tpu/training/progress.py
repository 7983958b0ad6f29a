"""How fast training goes, and the line that says so."""

import datetime
import sys
import time


class Progress:
  """Clock of the training loop: rates since the last report, and the expected end.

  The time that the loop waits for input is measured apart, between `waiting` and `arrived`.
  """

  def __init__(self, start: int, total: int, batch_size: int, active: bool = True):
    self._start, self._total, self._batch_size = start, total, batch_size
    self._active = active
    self._last_step, self._last_time = start, time.perf_counter()
    self._waited = 0.0
    self._speed = None

  def waiting(self) -> None:
    self._wait_start = time.perf_counter()

  def arrived(self) -> None:
    self._waited += time.perf_counter() - self._wait_start

  def rates(self, step: int) -> dict[str, float]:
    """`steps_per_second`, `examples_per_second`, `input_wait_fraction` since the last call."""
    now = time.perf_counter()
    seconds, steps = max(now - self._last_time, 1e-9), step - self._last_step
    speed = steps / seconds
    # Evaluations and the first steps disturb single measurements; the expected end should not jump.
    self._speed = speed if self._speed is None else 0.7 * self._speed + 0.3 * speed
    rates = {
      'steps_per_second': speed,
      'examples_per_second': speed * self._batch_size,
      'input_wait_fraction': self._waited / seconds,
    }
    self._last_step, self._last_time, self._waited = step, now, 0.0
    return rates

  def pause(self) -> 'Progress':
    """`with progress.pause():` keeps evaluations and saves out of the rates."""
    return self

  def __enter__(self) -> None:
    self._paused_at = time.perf_counter()

  def __exit__(self, *_) -> None:
    self._last_time += time.perf_counter() - self._paused_at

  def evaluated(self, step: int, name: str, metrics: dict[str, float]) -> None:
    """Prints what an evaluation gave, on a line of its own."""
    if self._active and metrics:
      clear = '\r\033[K' if sys.stdout.isatty() else ''
      print(f'{clear}evaluation {name} at step {step:,}:{_shown(metrics)}', flush=True)

  def line(self, step: int, metrics: dict[str, float], rates: dict[str, float]) -> None:
    """Prints where training is; on a terminal, over the line before."""
    if not self._active:
      return
    left = datetime.timedelta(seconds=round((self._total - step) / max(self._speed, 1e-9)))
    speed = f'{rates["steps_per_second"]:.3g} steps/s'
    text = f'step {step:,}/{self._total:,}{_shown(metrics)}  {speed}  {left} left'
    terminal = sys.stdout.isatty() and step < self._total
    print(f'\r\033[K{text}' if terminal else text, end='' if terminal else '\n', flush=True)


def _shown(metrics: dict[str, float]) -> str:
  return ''.join(f'  {name} {float(value):.4g}' for name, value in metrics.items())
