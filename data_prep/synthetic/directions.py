"""Unit vectors that are the same numbers on every machine."""

import numpy as np

_STEPS = 2**20  # to the unit: far coarser than the last bits in which sine and cosine differ


def direction(turns: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
  """Cosine and sine of an angle in full turns, as multiples of 2**-20.

  Processors and NumPy versions disagree in the last bit of a sine, which would move an edge by a
  pixel once in a while. Sums, products, quotients and square roots are exactly rounded everywhere,
  so a picture made of those and of these numbers comes out the same.
  """
  angle = 2 * np.pi * np.asarray(turns)
  return np.rint(np.cos(angle) * _STEPS) / _STEPS, np.rint(np.sin(angle) * _STEPS) / _STEPS
