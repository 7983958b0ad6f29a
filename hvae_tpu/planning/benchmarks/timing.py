"""Interleaved timing of several programs, so that all see the same load of the machine."""

from collections.abc import Callable
import statistics
import time
from typing import Any, NamedTuple

import jax


class Time(NamedTuple):
  """Seconds of a program: median and minimum of its calls, and median CPU time of all cores."""

  wall: float
  least: float
  cpu: float


def in_turn(programs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Time]:
  """Calls every program once to warm up, then all of them in turn, `rounds` times."""
  samples = {name: [] for name in programs}
  for number in range(rounds + 1):
    for name, program in programs.items():
      wall, cpu = time.perf_counter(), time.process_time()
      jax.block_until_ready(program())
      if number:
        samples[name].append((time.perf_counter() - wall, time.process_time() - cpu))
  times = {}
  for name, pairs in samples.items():
    walls, cpus = zip(*pairs, strict=True)
    times[name] = Time(statistics.median(walls), min(walls), statistics.median(cpus))
  return times
