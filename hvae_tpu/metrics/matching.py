"""Assignment of slots to objects by the overlap of their pixels, and scores from it."""

from typing import NamedTuple

import numpy as np

from hvae_tpu.metrics.rand_index import adjusted_rand_index

SMALLEST = 50  # pixels; smaller objects are not matched
LEAST_OVERLAP = 0.1  # of a match
NEVER = -1e6  # an overlap that no assignment takes by choice


class Matches(NamedTuple):
  """Pairs of `objects` (from 1 on, 0 is the background) and `slots`, int [n] each."""

  objects: np.ndarray
  slots: np.ndarray


def match(true: np.ndarray, predicted: np.ndarray, num_objects: int, num_slots: int) -> Matches:
  """Pairs objects and slots so that the sum of overlaps (intersection over union) is largest.

  Args:
    true: entity of each pixel; objects are numbered from 1.
    predicted: slot of each pixel.
    num_objects: objects present, at most `num_slots`.
    num_slots: K.

  Returns:
    Pairs that overlap by `LEAST_OVERLAP` at least; objects of few pixels are left out.
  """
  # Imported late: it takes half a second, and only some evaluations need it.
  from scipy.optimize import linear_sum_assignment

  overlap = np.full((num_objects, num_slots), NEVER)
  for row, number in enumerate(range(1, num_objects + 1)):
    is_object = true == number
    if is_object.sum() >= SMALLEST:
      for slot in range(num_slots):
        in_slot = predicted == slot
        overlap[row, slot] = (is_object & in_slot).sum() / (is_object | in_slot).sum()
  rows, slots = linear_sum_assignment(overlap, maximize=True)
  good = overlap[rows, slots] >= LEAST_OVERLAP
  return Matches(rows[good] + 1, slots[good])


def texture_scores(
  true: np.ndarray, predicted: np.ndarray, num_slots: int, image: np.ndarray, painted: np.ndarray
) -> dict[str, float]:
  """Computes the scores of papers on CLEVRTEX of one picture.

  Args:
    true: entity of each pixel, [H, W].
    predicted: slot of each pixel, [H, W].
    num_slots: K.
    image, painted: [H, W, 3] in [0, 1], the picture and its reconstruction.

  Returns:
    `mse_sum` (over all values), `acc` (whether the numbers of parts are equal), `miou`, `dice`
    (means over pairs of parts that are not both empty), `miou_fg`, `dice_fg` (without the
    background), `miou_gt` (sum of overlaps over the number of true parts), `ari`, `ari_fg`.
  """
  from scipy.optimize import linear_sum_assignment

  count = max(int(true.max()) + 1, num_slots)
  parts = lambda ids: (ids.reshape(-1) == np.arange(count)[:, None]).astype(np.float64)
  truth, slots = parts(true), parts(predicted)
  shared = truth @ slots.T
  areas, others = truth.sum(1), slots.sum(1)
  union = areas[:, None] + others - shared
  overlap = shared / np.maximum(union, 1)
  rows, columns = linear_sum_assignment(overlap, maximize=True)
  overlap = overlap[rows, columns]
  dice = 2 * shared[rows, columns] / np.maximum(areas + others[columns], 1)
  pairs = np.count_nonzero((areas > 0) | (others[columns] > 0))
  without = np.maximum(pairs - 1, 1)  # a picture of one part has no overlap in the foreground
  sklearn = 'zero_denominator_is_one'
  return {
    'mse_sum': float(np.square(image - painted).sum()),
    'acc': float(np.count_nonzero(areas) == np.count_nonzero(others)),
    'miou': overlap.sum() / pairs,
    'miou_fg': overlap[1:].sum() / without,
    'miou_gt': overlap.sum() / np.count_nonzero(areas),
    'dice': dice.sum() / pairs,
    'dice_fg': dice[1:].sum() / without,
    'ari': adjusted_rand_index(true, predicted, foreground=False, convention=sklearn),
    'ari_fg': adjusted_rand_index(true, predicted, foreground=True, convention=sklearn),
  }
