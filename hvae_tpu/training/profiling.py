"""Device traces of a few training steps, for TensorBoard's profile page and Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


class Profiled:
  """A train step that traces itself for some of its calls.

  Args:
    step: train step.
    directory: folder of the trace, such as the log directory of the run.
    first: number of the first traced call since the start of the program, counted from 1.
    count: number of traced calls.
  """

  def __init__(self, step: Callable[..., Any], directory: Path, first: int, count: int):
    self._step, self._directory = step, directory
    self._first, self._last = first, first + count - 1
    self._calls = 0

  def __call__(self, *args: Any) -> Any:
    self._calls += 1
    if self._calls == self._first:
      jax.profiler.start_trace(str(self._directory))
    result = self._step(*args)
    if self._calls == self._last:
      jax.block_until_ready(result)
      jax.profiler.stop_trace()
    return result
