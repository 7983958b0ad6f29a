"""Value noise: random numbers on a lattice, smoothly joined; tiles without a seam."""

import numpy as np


def value_noise(rng: np.random.Generator, size: int, waves: int) -> np.ndarray:
  """One octave: `waves` lattice points a side, joined by cubic steps.

  Args:
    rng: draws the lattice.
    size: side of the result, a multiple of `waves`.
    waves: lattice points a side.

  Returns:
    Numbers from 0 to 1, float64 [size, size]; the right edge goes on at the left one.
  """
  lattice = rng.random((waves, waves))
  pitch = size // waves
  place = np.arange(pitch) / pitch
  weight = (place * place * (3 - 2 * place))[:, np.newaxis, np.newaxis]
  for _ in range(2):  # down the rows, then, after the turn, along the columns
    joined = lattice + weight * (np.roll(lattice, -1, axis=0) - lattice)  # [pitch, waves, ...]
    lattice = joined.swapaxes(0, 1).reshape(size, -1).T
  return lattice


def fractal_noise(rng: np.random.Generator, size: int, waves: int, octaves: int) -> np.ndarray:
  """Octaves of value noise, each twice as fine as the one before and half as strong.

  Returns:
    Numbers from 0 to 1, float64 [size, size], seamless.
  """
  total = np.zeros((size, size))
  for octave in range(octaves):
    total = total + value_noise(rng, size, waves << octave) * 0.5 ** (octave + 1)
  return total / (1 - 0.5**octaves)
