"""Variates that a quantile keeps, by the statistics that `--mode=div_stats` has stored."""

import numpy as np

from hvae_tpu.evals import pruned
from hvae_tpu.models import protocol
from hvae_tpu.runs import weight_statistics
from hvae_tpu.runs.restore import LoadedRun

NEEDS = ('kl_per_variate', 'pruned', 'level_sizes')


def variates(loaded: LoadedRun, quantile: float, key: str) -> np.ndarray | None:
  """Returns the variates to keep, bool [L, V]; None (all) for a quantile of 1.

  Args:
    loaded: weights to prune.
    quantile: fraction of all variates to keep, ranked by their bits per position.
    key: path of the quantile in the config, which errors name.

  Raises:
    UserError: the model cannot be pruned, or there are no statistics of these weights.
  """
  if quantile == 1:
    return None
  what = f'{key}={quantile}'
  protocol.require(loaded.model, NEEDS, what, f'set {key} to 1')
  arrays = weight_statistics.load(loaded, 'div_stats', ('bits',), what)
  return pruned.most_active(arrays['bits'], quantile)
