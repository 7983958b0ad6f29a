"""The largest batch that fits, from at most three compilations.

Peak memory is close to affine in the batch: two small batches give the line, one at its end is the
proof.
"""

from collections.abc import Callable
import dataclasses

from hvae_tpu.planning.analysis import Analysis

WIDER = 4  # examples on a device in the second compilation; with fewer, much stays on the chip
MARGIN = 0.97  # of the memory that the line may reach: layouts change with the batch


@dataclasses.dataclass(frozen=True)
class Largest:
  """Answer of a search.

  Attributes:
    batch_size: global, the largest that was compiled and fits; 0 if none.
    analysis: of that; of the smallest batch if none fits.
    per_example: bytes on a device for one more example of its group; 0 if unknown.
    bound: what the line promised; larger than `batch_size` where it was compiled and did not fit.
    compilations: that it took.
  """

  batch_size: int
  analysis: Analysis
  per_example: float
  bound: int
  compilations: int


def largest(run: Callable[[int], Analysis], devices: int, hbm: float, most: int) -> Largest:
  """Searches global batches that are multiples of the devices, or groups of them, that share one.

  Args:
    run: global batch size -> analysis.
    devices: or groups.
    hbm: bytes of a device.
    most: largest global batch of interest.
  """
  small = run(devices)
  if not small.compiled.fits:
    return Largest(0, small, 0.0, 0, 1)
  if most < 2 * devices:
    return Largest(devices, small, 0.0, devices, 1)
  few = min(WIDER, most // devices)
  wide = run(few * devices)
  if not wide.compiled.fits:
    middle = run(2 * devices) if few > 2 else small
    best = middle if middle.compiled.fits else small
    return Largest(best.batch_size, best, 0.0, best.batch_size, 3 if few > 2 else 2)
  slope = max(wide.compiled.peak - small.compiled.peak, 1.0) / (few - 1)
  room = MARGIN * hbm - wide.compiled.peak
  bound = min(few + max(int(room / slope), 0), most // devices) * devices
  if bound == few * devices:
    return Largest(bound, wide, slope, bound, 2)
  proof = run(bound)
  if proof.compiled.fits:
    return Largest(bound, proof, slope, bound, 3)
  return Largest(few * devices, wide, slope, bound, 3)
