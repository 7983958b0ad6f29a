"""Times of several programs, taken in turn so that all meet the same machine."""

from collections.abc import Callable
import statistics
import time
from typing import Any, NamedTuple

import jax


class Time(NamedTuple):
  """Seconds of a program: median and least of all calls, and median of what all cores spent."""

  wall: float
  least: float
  cpu: float


def in_turn(programs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Time]:
  """Calls every program once to warm up, then `rounds` times, one after the other."""
  found = {name: [] for name in programs}
  for number in range(rounds + 1):
    for name, program in programs.items():
      wall, cpu = time.perf_counter(), time.process_time()
      jax.block_until_ready(program())
      if number:
        found[name].append((time.perf_counter() - wall, time.process_time() - cpu))
  times = {}
  for name, pairs in found.items():
    walls, cpus = zip(*pairs, strict=True)
    times[name] = Time(statistics.median(walls), min(walls), statistics.median(cpus))
  return times
