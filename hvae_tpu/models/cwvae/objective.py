"""What training minimises beside the likelihood: the KL of every level, balanced and weighted."""

from collections.abc import Sequence
import math
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.cwvae.cells import Ticks
from hvae_tpu.nn.distributions import Normal


def level_kl(posterior: Normal, prior: Normal) -> Array:
  """KL of a level, summed over its ticks and latents, mean over the batch: [], nats."""
  return posterior.kl(prior).sum((1, 2)).mean()


def entropy(dist: Normal) -> Array:
  """Of a level, summed over its ticks and latents: [B], nats."""
  return (dist.logstd + 0.5 * math.log(2 * math.pi * math.e)).sum((1, 2))


def balanced(posterior: Normal, prior: Normal, share: float, rule: str) -> Array:
  """The KL of a level with its gradient split: `share` to the posterior, the rest to the prior.

  Args:
    share: `kl_grad_post_perc`.
    rule: 'intended'; 'reference': the posterior's part is a constant, as a slip in the original
      has it. The values are equal.
  """
  hold = jax.lax.stop_gradient
  of_prior = (1 - share) * level_kl(hold(posterior), prior)
  of_posterior = jnp.maximum(1.0, share * level_kl(posterior, hold(prior)))
  return of_prior + (hold(of_posterior) if rule == 'reference' else of_posterior)


def weighted_kl(model: Any, levels: Sequence[Ticks]) -> Array:
  """The KL part of the training loss, summed over levels: [], nats per sequence.

  Args:
    model: `CWVAE`, of which loss weights are read.
    levels: from the bottom.
  """
  beta = model.beta if len(model.beta) == len(levels) else model.beta * len(levels)
  total = jnp.zeros(())
  for ticks, weight in zip(levels, beta, strict=True):
    if model.kl_grad_post_perc is None:
      kl = level_kl(ticks.posterior, ticks.prior)
    else:
      kl = balanced(ticks.posterior, ticks.prior, model.kl_grad_post_perc, model.kl_balance)
    total += weight * jnp.maximum(kl - model.free_nats, 0.0)
  return total
