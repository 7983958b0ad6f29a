"""The ELBO with a small part of the latent channels (Efficient-VDVAE, section 5).

The variates (latent channels) with most information per position on training data are kept. All
others are drawn from their prior, and cost nothing.
"""

from collections.abc import Callable, Iterator
import dataclasses
import itertools
import math
from typing import Any

import jax
from jax import Array
import numpy as np

from hvae_tpu.evals import averaging
from hvae_tpu.settings import setting

NEEDS = ('kl_per_variate', 'pruned', 'level_sizes')


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of evaluation `pruned`."""

  share: float = setting(0.03, above=0, below=1)  # fraction of all variates that is kept
  rank_batches: int = setting(0, least=0)  # training batches that rank them; 0: the whole view


def make(
  model: Any,
  batches: Callable[..., Iterator],
  options: Options = Options(),
  where: str = 'config.evals.pruned',
) -> Callable[..., dict[str, Any]]:
  """Returns the evaluation: ELBO, distortion and rate with the most informative variates only.

  Returns:
    `run(params, model_state, step, rng)`: as evaluation `elbo`, and `kept_variates` [L], how many
    variates of each level are kept.
  """
  measure_kl = mean_kl(model)

  @jax.jit
  def sums(params, model_state, batch, rng, variates):
    metrics = model.pruned(params, model_state, batch, rng, variates)
    return averaging.masked_sums(metrics, batch['mask'])

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, Any]:
    training = itertools.islice(batches('train'), options.rank_batches or None)
    kl = measure_kl(params, model_state, training, rng)
    variates = most_active(bits_per_position(kl, np.asarray(model.level_sizes)), options.share)
    score = lambda batch, rng: sums(params, model_state, batch, rng, variates)
    means = averaging.averages(score, batches(), rng)
    return {**means, 'kept_variates': variates.sum(1).astype(np.float64)}

  return run


def mean_kl(model: Any) -> Callable[..., np.ndarray]:
  """Returns `run(params, model_state, batches, rng)`: mean KL of every variate [L, V], nats."""

  @jax.jit
  def sums(params, model_state, batch, rng):
    kl = model.kl_per_variate(params, model_state, batch, rng)
    return averaging.masked_sums({'kl': kl}, batch['mask'])

  def run(params: Any, model_state: Any, batches: Iterator, rng: Array) -> np.ndarray:
    score = lambda batch, rng: sums(params, model_state, batch, rng)
    return averaging.averages(score, batches, rng)['kl']

  return run


def bits_per_position(kl: np.ndarray, level_sizes: np.ndarray) -> np.ndarray:
  """Converts the mean KL of variates [L, V], nats summed over space, to bits per position."""
  positions = level_sizes / kl.shape[1]
  return kl / (positions[:, None] * math.log(2))


def most_active(stats: np.ndarray, share: float) -> np.ndarray:
  """Returns a mask of the variates [L, V] above the quantile 1 - share of all: bool [L, V]."""
  return stats > np.quantile(stats, 1 - share).astype(stats.dtype)
