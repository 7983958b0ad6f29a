"""KL part of the training loss: the KL of every level, balanced and weighted."""

from collections.abc import Sequence
import math
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.cwvae.cells import LevelOutputs
from hvae_tpu.nn.distributions import Normal


def level_kl(posterior: Normal, prior: Normal) -> Array:
  """Returns the KL of a level, summed over ticks and latents, mean over the batch: [], nats."""
  return posterior.kl(prior).sum((1, 2)).mean()


def entropy(dist: Normal) -> Array:
  """Returns the entropy of a level, summed over ticks and latents: [B], nats."""
  return (dist.logstd + 0.5 * math.log(2 * math.pi * math.e)).sum((1, 2))


def balanced(posterior: Normal, prior: Normal, share: float, rule: str) -> Array:
  """Returns the KL of a level with a split gradient: KL balancing.

  Args:
    posterior, prior: distributions of the level.
    share: part of the gradient for the posterior (`kl_grad_post_perc`); the prior gets the rest.
    rule: 'intended'; or 'reference', where a slip of the original makes the posterior's part a
      constant. The values are equal.
  """
  hold = jax.lax.stop_gradient
  prior_part = (1 - share) * level_kl(hold(posterior), prior)
  posterior_part = jnp.maximum(1.0, share * level_kl(posterior, hold(prior)))
  return prior_part + (hold(posterior_part) if rule == 'reference' else posterior_part)


def weighted_kl(model: Any, levels: Sequence[LevelOutputs]) -> Array:
  """Returns the KL part of the training loss, summed over levels: [], nats per sequence.

  Args:
    model: `CWVAE`, for the loss weights.
    levels: from the bottom.
  """
  beta = model.beta if len(model.beta) == len(levels) else model.beta * len(levels)
  total = jnp.zeros(())
  for level, weight in zip(levels, beta, strict=True):
    if model.kl_grad_post_perc is None:
      kl = level_kl(level.posterior, level.prior)
    else:
      kl = balanced(level.posterior, level.prior, model.kl_grad_post_perc, model.kl_balance)
    total += weight * jnp.maximum(kl - model.free_nats, 0.0)
  return total
