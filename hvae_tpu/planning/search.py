"""Search for the largest batch that fits, with at most three compilations.

Peak memory is close to affine in the batch size. Two small batches give the line; a compilation at
the end of that line confirms it.
"""

from collections.abc import Callable
import dataclasses

from hvae_tpu.planning.analysis import Analysis

WIDER = 4  # examples per device in the second compilation; fewer may stay in on-chip memory
MARGIN = 0.97  # fraction of the memory that the line may reach: layouts change with the batch


@dataclasses.dataclass(frozen=True)
class LargestBatch:
  """Result of a search.

  Attributes:
    batch_size: largest global batch size that was compiled and fits; 0 if none fits.
    analysis: analysis of that batch, or of the smallest one if none fits.
    per_example: bytes on a device for each additional example; 0 if unknown.
    bound: batch size at the end of the line. It is larger than `batch_size` if it was compiled and
      did not fit.
    compilations: number of compilations that the search took.
  """

  batch_size: int
  analysis: Analysis
  per_example: float
  bound: int
  compilations: int


def largest_batch(
  run: Callable[[int], Analysis], devices: int, hbm: float, most: int
) -> LargestBatch:
  """Searches the largest global batch size that fits; it is a multiple of `devices`.

  Args:
    run: compiles a program for a global batch size and returns its analysis.
    devices: number of devices, or of groups of devices that share an example.
    hbm: memory of a device, bytes.
    most: largest global batch size to try.
  """
  small = run(devices)
  if not small.compiled.fits:
    return LargestBatch(0, small, 0.0, 0, 1)
  if most < 2 * devices:
    return LargestBatch(devices, small, 0.0, devices, 1)
  few = min(WIDER, most // devices)
  wide = run(few * devices)
  if not wide.compiled.fits:
    middle = run(2 * devices) if few > 2 else small
    best = middle if middle.compiled.fits else small
    return LargestBatch(best.batch_size, best, 0.0, best.batch_size, 3 if few > 2 else 2)
  slope = max(wide.compiled.peak - small.compiled.peak, 1.0) / (few - 1)
  room = MARGIN * hbm - wide.compiled.peak
  bound = min(few + max(int(room / slope), 0), most // devices) * devices
  if bound == few * devices:
    return LargestBatch(bound, wide, slope, bound, 2)
  proof = run(bound)
  if proof.compiled.fits:
    return LargestBatch(bound, proof, slope, bound, 3)
  return LargestBatch(few * devices, wide, slope, bound, 3)
