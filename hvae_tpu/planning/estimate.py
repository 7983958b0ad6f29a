"""Roofline model: lower bounds on the time of a step, from published figures of the chip."""

from typing import NamedTuple

from hvae_tpu.planning import chips
from hvae_tpu.planning.analysis import Analysis


class Estimate(NamedTuple):
  """Estimated seconds of one step; none of them is measured.

  Attributes:
    compute: s, with matrix units at their peak; counts the passes that the precision takes.
    memory: s, to read operands and write results of convolutions and matrix products once, and to
      read and write the state once.
    links: s, for collectives that go round a ring, at the bandwidth of all links of a chip.
    roofline: s, lower bound: the largest of the three above, as if they ran side by side.
    planned: s, the same with compute at the expected fraction of the peak.
    cycles: s, from the compiler's own estimate of cycles at the clock of the chip; uncalibrated.
    intensity: arithmetic intensity, FLOPs per byte of memory traffic.
  """

  compute: float
  memory: float
  links: float
  roofline: float
  planned: float
  cycles: float
  intensity: float


def estimate(analysis: Analysis, chip: chips.Chip, precision: str, efficiency: float) -> Estimate:
  """Estimates the time of one step on one device.

  Args:
    analysis: analysis of the program.
    chip: published figures of the device.
    precision: precision of convolutions and matrix products; 'default' multiplies in bfloat16.
    efficiency: fraction of the matrix units' peak that a real step is expected to reach.
  """
  compute = analysis.work.flops / analysis.devices * chips.PASSES[precision] / chip.flops
  moved = analysis.work.bytes / analysis.devices + 2 * analysis.state_bytes
  memory = moved / chip.hbm_bandwidth
  sent = sum(wire for _, _, wire in analysis.compiled.collectives.values())
  links = sent / chip.ici_bandwidth
  return Estimate(
    compute=compute,
    memory=memory,
    links=links,
    roofline=max(compute, memory, links),
    planned=max(compute / efficiency, memory, links),
    cycles=analysis.compiled.cycles / chip.clock,
    intensity=analysis.work.flops / analysis.devices / moved,
  )
