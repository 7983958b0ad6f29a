"""How well a model does with a small part of its latent channels (Efficient-VDVAE, section 5).

The variates (latent channels) that carry most information per position on training data are kept;
all others are drawn from their prior, and cost nothing.
"""

from collections.abc import Callable, Iterator
import itertools
import math
from typing import Any

import jax
from jax import Array
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.evals import elbo

NEEDS = ('kl_per_variate', 'pruned', 'level_sizes')


def make(
  model: Any, batches: Callable[..., Iterator], share: float = 0.03, rank_batches: int = 0
) -> Callable[..., dict[str, Any]]:
  """ELBO, distortion and rate with the most informative variates only.

  Args:
    share: of all variates, to be kept.
    rank_batches: training batches to rank them by; 0: the whole training view.

  Returns:
    `run(params, model_state, step, rng)`: as evaluation `elbo`, and `kept_variates` [L], how many
    variates of each level are kept.

  Raises:
    UserError: a share that is not between 0 and 1.
  """
  if not 0 < share < 1:
    raise UserError(f'config.evals.pruned.share={share} must lie between 0 and 1')

  find = mean_kl(model)

  @jax.jit
  def sums(params, model_state, batch, rng, variates):
    metrics = model.pruned(params, model_state, batch, rng, variates)
    return elbo.masked_sums(metrics, batch['mask'])

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, Any]:
    training = itertools.islice(batches('train'), rank_batches or None)
    kl = find(params, model_state, training, rng)
    variates = most_active(bits_per_position(kl, np.asarray(model.level_sizes)), share)
    score = lambda batch, rng: sums(params, model_state, batch, rng, variates)
    found = elbo.averages(score, batches(), rng)
    return {**found, 'kept_variates': variates.sum(1).astype(np.float64)}

  return run


def mean_kl(model: Any) -> Callable[..., np.ndarray]:
  """Returns `run(params, model_state, batches, rng)`: mean KL of every variate [L, V], nats."""

  @jax.jit
  def sums(params, model_state, batch, rng):
    kl = model.kl_per_variate(params, model_state, batch, rng)
    return elbo.masked_sums({'kl': kl}, batch['mask'])

  def run(params: Any, model_state: Any, batches: Iterator, rng: Array) -> np.ndarray:
    find = lambda batch, rng: sums(params, model_state, batch, rng)
    return elbo.averages(find, batches, rng)['kl']

  return run


def bits_per_position(kl: np.ndarray, level_sizes: np.ndarray) -> np.ndarray:
  """Mean KL of every variate [L, V], summed over space, nats -> bits per spatial position."""
  positions = level_sizes / kl.shape[1]
  return kl / (positions[:, None] * math.log(2))


def most_active(stats: np.ndarray, share: float) -> np.ndarray:
  """Which variates [L, V] are above the quantile 1 - share of all: bool [L, V]."""
  return stats > np.quantile(stats, 1 - share).astype(stats.dtype)
