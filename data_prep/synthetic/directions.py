"""Unit vectors that are identical on every machine."""

import numpy as np

_STEPS = 2**20  # per unit: far coarser than the last bits, in which sines differ between machines


def direction(turns: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
  """Returns cosine and sine of an angle in full turns, rounded to multiples of 2**-20.

  Processors and NumPy versions disagree in the last bit of a sine, which would sometimes move an
  edge by a pixel. Sums, products, quotients and square roots are exactly rounded everywhere, so
  pictures computed from them and from these numbers are identical.
  """
  angle = 2 * np.pi * np.asarray(turns)
  return np.rint(np.cos(angle) * _STEPS) / _STEPS, np.rint(np.sin(angle) * _STEPS) / _STEPS
