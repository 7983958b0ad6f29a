"""A roofline: the least time that a step can take, from published figures of the chip."""

from typing import NamedTuple

from hvae_tpu.planning import chips
from hvae_tpu.planning.analysis import Analysis


class Estimate(NamedTuple):
  """Seconds of a step, none of them measured.

  Attributes:
    compute: matrix units at their peak, with the passes that the precision takes.
    memory: operands and results of convolutions and products, and the state, once each.
    links: collectives round a ring, at the bandwidth of all links of a chip.
    roofline: the least: the largest of these, as if they all ran side by side.
    planned: at the share of the peak that is expected.
    cycles: the compiler's own estimate, at the clock of the chip; uncalibrated.
    intensity: FLOPs per byte of memory traffic.
  """

  compute: float
  memory: float
  links: float
  roofline: float
  planned: float
  cycles: float
  intensity: float


def estimate(found: Analysis, chip: chips.Chip, precision: str, efficiency: float) -> Estimate:
  """Times of one step.

  Args:
    precision: of convolutions and products; 'default' multiplies in bfloat16.
    efficiency: share of the matrix units' peak that a real step is expected to reach.
  """
  compute = found.work.flops / found.devices * chips.PASSES[precision] / chip.flops
  moved = found.work.bytes / found.devices + 2 * found.state_bytes
  memory = moved / chip.hbm_bandwidth
  sent = sum(wire for _, _, wire in found.compiled.collectives.values())
  links = sent / chip.ici_bandwidth
  return Estimate(
    compute=compute,
    memory=memory,
    links=links,
    roofline=max(compute, memory, links),
    planned=max(compute / efficiency, memory, links),
    cycles=found.compiled.cycles / chip.clock,
    intensity=found.work.flops / found.devices / moved,
  )
