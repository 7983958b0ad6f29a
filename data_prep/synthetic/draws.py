"""The random numbers of one synthetic example."""

import numpy as np


def generator(seed: int, split: int, index: int) -> np.random.Generator:
  """The generator of an example, which depends on nothing but these three numbers.

  Args:
    seed: of the data set, below 2**32.
    split: number of the split, below 2**32.
    index: of the example (or video sequence) in its split.
  """
  key = np.array([index, seed << 32 | split], np.uint64)
  return np.random.Generator(np.random.Philox(key=key))


def between(
  rng: np.random.Generator, low: float, high: float, size: int | tuple[int, ...] | None = None
) -> np.ndarray | float:
  """Uniform numbers from `low` on and below `high`; one if `size` is None.

  `Generator.uniform` adds and multiplies in one compiled line, which some processors round once
  and others twice.
  """
  return low + (high - low) * rng.random(size)
