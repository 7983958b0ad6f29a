"""Adjusted Rand index of two partitions of the pixels of a picture (Hubert & Arabie, 1985)."""

import numpy as np


def adjusted_rand_index(
  true: np.ndarray, predicted: np.ndarray, foreground: bool = True, convention: str = 'reference'
) -> float:
  """Scores the agreement of two partitions: 1 if they are the same, about 0 for chance.

  Args:
    true: entity of each pixel; 0 is the background.
    predicted: slot of each pixel, of the same shape.
    foreground: whether only pixels of objects count, in whichever slot they are.
    convention: the value of 0 / 0. 'reference' (EfficientMORL): 0, but 1 where one object lies in
      one slot. 'constant_is_one' (DeepMind): 1 if both partitions are constant, else 0.
      'zero_denominator_is_one' (SAVi): 1.
  """
  true, predicted = (np.asarray(ids).reshape(-1).astype(np.int64) for ids in (true, predicted))
  counted = true > 0 if foreground else np.ones(true.shape, bool)
  table = contingency(true[counted], predicted[counted])
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


def contingency(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """Counts the pixels in each pair of parts: float64 [parts of true, parts of predicted]."""
  parts, rows = np.unique(true, return_inverse=True)
  others, columns = np.unique(predicted, return_inverse=True)
  table = np.zeros((len(parts), len(others)))
  np.add.at(table, (rows, columns), 1)
  return table
