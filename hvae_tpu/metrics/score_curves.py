"""Means and deviations of the scores of several videos, frame by frame."""

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
  """Mean and deviation of scores, as arrays or as single numbers.

  Attributes:
    mean, deviation: mean and deviation of the population; NaN where every score is left out.
    left_out: number of scores that are left out because they are infinite.
  """

  mean: np.ndarray
  deviation: np.ndarray
  left_out: np.ndarray


def moments(scores: np.ndarray, axis: int | None = None) -> Moments:
  """Computes the moments of scores [N, T], over all of them or over the examples of each frame.

  The PSNR of frames that are equal in a channel is infinite. One such frame would make the mean
  infinite, so infinite scores are left out, and counted. NaN is kept: it shows a broken prediction.

  Args:
    axis: 0 for one result per frame; None for one in all.
  """
  counted = ~np.isposinf(scores)
  count = counted.sum(axis)
  mean_of = lambda values: np.where(counted, values, 0).sum(axis) / count
  with np.errstate(divide='ignore', invalid='ignore'):
    mean = mean_of(scores)
    deviation = np.sqrt(mean_of(np.square(scores - mean)))
  return Moments(mean, deviation, np.sum(~counted, axis))
