"""Averages of what the model reports about each example, over a whole view."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu import sharding

NEEDS = ('loss',)


def make(model: Any, batches: Callable[..., Iterator]) -> Callable[..., dict[str, Any]]:
  """ELBO, distortion and rate (one posterior sample per example).

  Returns:
    `run(params, model_state, step, rng)`: mean of each metric whose first axis is the batch, over
    the exact number of examples, which is reported as `num_examples`.
  """

  @jax.jit
  def sums(params, model_state, batch, step, rng):
    mask = batch['mask']
    _, (_, metrics) = model.loss(params, model_state, batch, rng=rng, step=step, train=False)
    # `where` rather than a product: a padding row must not matter even if it is not finite.
    masked = lambda m: jnp.where(mask.reshape(-1, *[1] * (m.ndim - 1)), m, 0).sum(0)
    return {name: masked(m) for name, m in metrics.items() if m.ndim}, mask.sum()

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, Any]:
    totals, count = {}, 0
    for i, batch in enumerate(batches()):
      found, size = sharding.to_host(
        sums(params, model_state, batch, step, jax.random.fold_in(rng, i))
      )
      count += int(size)
      for name, value in found.items():
        totals[name] = totals.get(name, 0) + value.astype(np.float64)
    return {**{name: total / count for name, total in totals.items()}, 'num_examples': count}

  return run
