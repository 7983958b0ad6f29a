"""Disentanglement, completeness, informativeness (Eastwood & Williams, ICLR 2018)."""

from typing import NamedTuple

import numpy as np

from hvae_tpu.errors import UserError

MODES = ('per_factor', 'reference')
TINY = 1e-11  # keeps the logarithm of a share of nothing finite


class Scores(NamedTuple):
  """Scores in [0, 1]; informativeness is the share of predictions that are exactly right."""

  disentanglement: float
  completeness: float
  informativeness_train: float
  informativeness_test: float


def evaluate(
  codes: np.ndarray,
  factors: np.ndarray,
  discrete: tuple[bool, ...],
  held_out: np.ndarray,
  mode: str = 'per_factor',
) -> tuple[np.ndarray, Scores]:
  """Predicts factors of variation from codes, and scores how the codes relate to them.

  Args:
    codes: float [N, D].
    factors: float [N, F].
    discrete: whether each factor is a category, [F].
    held_out: bool [N], examples to test on; the others train.
    mode: 'per_factor' predicts each factor by gradient boosting of its kind. 'reference' does as
      EfficientMORL's code: from the first continuous factor on, all are taken for continuous, so
      that hardly any prediction is exactly right.

  Returns:
    Importance of each code for each factor, [D, F], and the scores.

  Raises:
    UserError: an unknown mode.
  """
  # Imported late: it takes seconds, and only this needs it.
  from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

  if mode not in MODES:
    raise UserError(f'the mode of DCI, {mode!r}, must be one of {", ".join(MODES)}')
  importance, rates, sticky = np.zeros((codes.shape[1], factors.shape[1])), [], False
  for i, is_discrete in enumerate(discrete):
    sticky = sticky or not is_discrete
    as_class = is_discrete and not (mode == 'reference' and sticky)
    estimator = GradientBoostingClassifier() if as_class else GradientBoostingRegressor()
    estimator.fit(codes[~held_out], factors[~held_out, i])
    importance[:, i] = np.abs(estimator.feature_importances_)
    right = estimator.predict(codes) == factors[:, i]
    rates.append((right[~held_out].mean(), right[held_out].mean()))
  train, test = np.mean(rates, axis=0)
  scores = Scores(disentanglement(importance), completeness(importance), train, test)
  return importance, scores


def disentanglement(importance: np.ndarray) -> float:
  """Scores whether each code matters for one factor only; codes count by importance [D, F]."""
  return _concentration(importance)


def completeness(importance: np.ndarray) -> float:
  """Scores whether one code alone matters for each factor; factors count by importance [D, F]."""
  return _concentration(importance.T)


def _concentration(rows: np.ndarray) -> float:
  """Returns 1 - entropy of each row (normalised to at most 1), averaged by the rows' sums."""
  shares = rows + TINY
  shares = shares / shares.sum(1, keepdims=True)
  entropy = -(shares * np.log(shares)).sum(1) / np.log(rows.shape[1])
  total = rows.sum()
  weights = rows.sum(1) / total if total else np.full(len(rows), 1 / len(rows))
  return float((weights * (1 - entropy)).sum())
