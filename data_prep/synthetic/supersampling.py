"""Pictures that are drawn at twice their size and averaged, for smooth edges."""

import numpy as np


def halve(fine: np.ndarray) -> np.ndarray:
  """Averages squares of 2x2 pixels, in whole numbers.

  Args:
    fine: levels from 0 on, below 16384, of any type, [T, 2 H, 2 W, C]; fractions are cut off.

  Returns:
    uint8 [T, H, W, C]; white where the mean is above 255.
  """
  fine = fine.astype(np.uint16)
  total = fine[:, ::2, ::2] + fine[:, ::2, 1::2] + fine[:, 1::2, ::2] + fine[:, 1::2, 1::2]
  return np.minimum((total + 2) // 4, 255).astype(np.uint8)
