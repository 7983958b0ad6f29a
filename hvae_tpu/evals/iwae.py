"""Importance-weighted likelihood (Burda, Grosse, Salakhutdinov, 2016).

log p(x) is estimated by the log of the mean of k importance weights; its expectation grows with k
from the ELBO (k = 1) to log p(x).
"""

from collections.abc import Callable, Iterator
import dataclasses
import math
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.evals import averaging
from hvae_tpu.settings import setting

NEEDS = ('log_weights', 'num_dims')


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of evaluation `iwae`."""

  num_samples: int = setting(10, least=1)  # importance samples of each example
  # samples computed at a time; must divide num_samples. Peak memory grows with it, not with
  # num_samples. Another chunk draws other samples.
  chunk: int = setting(1, least=1)


class Sums(NamedTuple):
  """Running sums over the importance log-weights seen so far, per example [B].

  Attributes:
    log_sum, log_squares: logs of the sums of the weights, and of their squares.
    total: sum of the log-weights themselves.
  """

  log_sum: Array
  log_squares: Array
  total: Array


def make(
  model: Any,
  batches: Callable[..., Iterator],
  options: Options = Options(),
  where: str = 'config.evals.iwae',
) -> Callable[..., dict[str, Any]]:
  """Returns the evaluation.

  Returns:
    `run(params, model_state, step, rng)`: `nll` (nats per example) and `bpd` of the estimate,
    `nll_standard_error` (of its mean over the view), `neg_elbo` and `elbo_bpd` from the same
    weights, `effective_samples` (mean of (sum w)^2 / sum w^2, between 1 and `num_samples`).

  Raises:
    UserError: a chunk that does not divide the samples.
  """
  num_samples, chunk = options.num_samples, options.chunk
  if num_samples % chunk:
    raise UserError(
      f'{where}.num_samples={num_samples} must be a multiple of {where}.chunk={chunk}'
    )

  @jax.jit
  def sums(params, model_state, batch, rng):
    def body(i, carry):
      keys = jax.random.split(jax.random.fold_in(rng, i), chunk)
      draw = lambda key: model.log_weights(params, model_state, batch, key)
      return add(carry, jax.vmap(draw)(keys) if chunk > 1 else draw(keys[0])[None])

    weights = jax.lax.fori_loop(0, num_samples // chunk, body, start(len(batch['mask'])))
    return averaging.masked_sums(estimates(weights, num_samples), batch['mask'])

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, Any]:
    score = lambda batch, rng: sums(params, model_state, batch, rng)
    means = averaging.averages(score, batches(), rng)
    variance = max(means.pop('nll_squared') - means['nll'] ** 2, 0.0)
    to_bpd = 1 / (model.num_dims * math.log(2))
    return {
      **means,
      'nll_standard_error': np.sqrt(variance / means['num_examples']),
      'bpd': means['nll'] * to_bpd,
      'elbo_bpd': means['neg_elbo'] * to_bpd,
    }

  return run


def start(size: int) -> Sums:
  """Returns the sums of no weights, for a batch of `size`."""
  nothing = jnp.full(size, -jnp.inf)
  return Sums(nothing, nothing, jnp.zeros(size))


def add(sums: Sums, log_weights: Array) -> Sums:
  """Adds the log-weights [samples, B] of a further chunk."""
  return Sums(
    jnp.logaddexp(sums.log_sum, jax.nn.logsumexp(log_weights, axis=0)),
    jnp.logaddexp(sums.log_squares, jax.nn.logsumexp(2 * log_weights, axis=0)),
    sums.total + log_weights.sum(0),
  )


def estimates(sums: Sums, count: int) -> dict[str, Array]:
  """Computes the estimates from `count` weights of each example, [B] each; see `make`."""
  nll = math.log(count) - sums.log_sum
  return {
    'nll': nll,
    'nll_squared': jnp.square(nll),
    'neg_elbo': -sums.total / count,
    'effective_samples': jnp.exp(2 * sums.log_sum - sums.log_squares),
  }
