"""Random numbers of one synthetic example."""

import numpy as np


def generator(seed: int, split: int, index: int) -> np.random.Generator:
  """Returns the random generator of an example.

  Args:
    seed: seed of the data set, below 2**32.
    split: number of the split, below 2**32.
    index: index of the example (or video sequence) in its split.
  """
  key = np.array([index, seed << 32 | split], np.uint64)
  return np.random.Generator(np.random.Philox(key=key))


def between(
  rng: np.random.Generator, low: float, high: float, size: int | tuple[int, ...] | None = None
) -> np.ndarray | float:
  """Draws uniform numbers in [`low`, `high`); a single one if `size` is None.

  `Generator.uniform` is not used: its multiply and add are rounded once on some processors and
  twice on others.
  """
  return low + (high - low) * rng.random(size)
