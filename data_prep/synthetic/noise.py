"""Value noise: smooth interpolation of random numbers on a lattice; it tiles without a seam."""

import numpy as np


def value_noise(rng: np.random.Generator, size: int, waves: int) -> np.ndarray:
  """Draws one octave: `waves` lattice points a side, interpolated by cubic steps.

  Args:
    rng: draws the lattice.
    size: side of the result, a multiple of `waves`.
    waves: lattice points a side.

  Returns:
    Numbers from 0 to 1, float64 [size, size]; periodic.
  """
  lattice = rng.random((waves, waves))
  pitch = size // waves
  place = np.arange(pitch) / pitch
  weight = (place * place * (3 - 2 * place))[:, np.newaxis, np.newaxis]
  for _ in range(2):  # along the rows, then, transposed, along the columns
    joined = lattice + weight * (np.roll(lattice, -1, axis=0) - lattice)  # [pitch, waves, ...]
    lattice = joined.swapaxes(0, 1).reshape(size, -1).T
  return lattice


def fractal_noise(rng: np.random.Generator, size: int, waves: int, octaves: int) -> np.ndarray:
  """Adds octaves of value noise; each is twice as fine as the one before and half as strong.

  Returns:
    Numbers from 0 to 1, float64 [size, size]; periodic.
  """
  total = np.zeros((size, size))
  for octave in range(octaves):
    total = total + value_noise(rng, size, waves << octave) * 0.5 ** (octave + 1)
  return total / (1 - 0.5**octaves)
