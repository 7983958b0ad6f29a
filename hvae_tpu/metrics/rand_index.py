"""Adjusted Rand index of two partitions of the pixels of a picture (Hubert & Arabie, 1985)."""

import numpy as np


def adjusted_rand_index(
  true: np.ndarray, found: np.ndarray, foreground: bool = True, convention: str = 'reference'
) -> float:
  """How well two partitions agree: 1 if they are the same, about 0 for chance.

  Args:
    true: entity of each pixel; 0 is the background.
    found: slot of each pixel, of the same shape.
    foreground: whether only pixels of objects count, wherever they were put.
    convention: what 0 / 0 is. 'reference' (EfficientMORL): 0, but 1 where one object lies in one
      slot. 'constant_is_one' (DeepMind): as it says, for both partitions together; else 0.
      'zero_denominator_is_one' (SAVi).
  """
  true, found = (np.asarray(ids).reshape(-1).astype(np.int64) for ids in (true, found))
  counted = true > 0 if foreground else np.ones(true.shape, bool)
  table = contingency(true[counted], found[counted])
  pairs = lambda counts: float((counts * (counts - 1)).sum())
  total = pairs(table.sum(keepdims=True))
  same, rows, columns = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
  expected = rows * columns / total if total else np.nan
  most = (rows + columns) / 2
  if most != expected and total:
    index = (same - expected) / (most - expected)
  else:
    index = float(convention == 'zero_denominator_is_one')
  is_one_cell = np.count_nonzero(table) == 1
  if convention == 'constant_is_one':
    is_one_cell = max(table.shape) <= 1
  return 1.0 if is_one_cell else index


def contingency(true: np.ndarray, found: np.ndarray) -> np.ndarray:
  """How many pixels lie in each pair of parts, float64 [parts of true, parts of found]."""
  parts, rows = np.unique(true, return_inverse=True)
  others, columns = np.unique(found, return_inverse=True)
  table = np.zeros((len(parts), len(others)))
  np.add.at(table, (rows, columns), 1)
  return table
