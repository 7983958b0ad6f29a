"""Antialiasing: pictures are rendered at twice their size and averaged."""

import numpy as np


def halve(fine: np.ndarray) -> np.ndarray:
  """Averages squares of 2x2 pixels in integer arithmetic.

  Args:
    fine: levels in [0, 16384), of any type, [T, 2 H, 2 W, C]; fractions are cut off.

  Returns:
    uint8 [T, H, W, C]; means above 255 become 255.
  """
  fine = fine.astype(np.uint16)
  total = fine[:, ::2, ::2] + fine[:, ::2, 1::2] + fine[:, 1::2, ::2] + fine[:, 1::2, 1::2]
  return np.minimum((total + 2) // 4, 255).astype(np.uint8)
