"""Scores of several videos, frame by frame: their means and deviations."""

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
  """Of some scores; arrays or single numbers alike.

  Attributes:
    mean, deviation: population ones; NaN where every score is left out.
    left_out: how many scores are, because they are infinite.
  """

  mean: np.ndarray
  deviation: np.ndarray
  left_out: np.ndarray


def moments(scores: np.ndarray, axis: int | None = None) -> Moments:
  """Mean and deviation of scores [N, T], of all of them or over the examples of every frame.

  The PSNR of frames that are equal in a channel is infinite: a single one would be all that a mean
  tells, and leave it without a deviation. So infinite scores are left out, and counted. NaN is not:
  it says that a prediction is broken.

  Args:
    axis: 0 for one result per frame; None for one in all.
  """
  kept = ~np.isposinf(scores)
  count = kept.sum(axis)
  mean_of = lambda values: np.where(kept, values, 0).sum(axis) / count
  with np.errstate(divide='ignore', invalid='ignore'):
    mean = mean_of(scores)
    deviation = np.sqrt(mean_of(np.square(scores - mean)))
  return Moments(mean, deviation, np.sum(~kept, axis))
