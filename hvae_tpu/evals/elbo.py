"""Averages of what the model reports about each example, over a whole view."""

from collections.abc import Callable, Iterator
import itertools
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.devices import sharding

NEEDS = ('loss',)


def make(
  model: Any, batches: Callable[..., Iterator], max_batches: int = 0
) -> Callable[..., dict[str, Any]]:
  """ELBO, distortion and rate (one posterior sample per example).

  Args:
    max_batches: of the view, the same ones at every call; 0: all.

  Returns:
    `run(params, model_state, step, rng)`: mean of each metric whose first axis is the batch, over
    the exact number of examples, which is reported as `num_examples`.
  """

  sums = program(model)

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, Any]:
    found = itertools.islice(batches(), max_batches or None)
    return averages(lambda batch, rng: sums(params, model_state, batch, step, rng), found, rng)

  return run


def program(model: Any) -> Callable[..., tuple[dict[str, Array], Array]]:
  """(params, model_state, batch, step, rng) -> what `masked_sums` returns of one batch, jitted."""

  @jax.jit
  def sums(params, model_state, batch, step, rng):
    _, (_, metrics) = model.loss(params, model_state, batch, rng=rng, step=step, train=False)
    return masked_sums(metrics, batch['mask'])

  return sums


def masked_sums(metrics: dict[str, Array], mask: Array) -> tuple[dict[str, Array], Array]:
  """Sums over the batch of every metric that has it as its first axis, and the number of examples.

  Args:
    metrics: of a model; scalars are left out.
    mask: [B], False on padding.
  """
  # `where` rather than a product: a padding row must not matter even if it is not finite.
  masked = lambda m: jnp.where(mask.reshape(-1, *[1] * (m.ndim - 1)), m, 0).sum(0)
  return {name: masked(m) for name, m in metrics.items() if m.ndim}, mask.sum()


def averages(
  sums: Callable[..., tuple[dict[str, Array], Array]], batches: Iterator, rng: Array
) -> dict[str, Any]:
  """Means over all examples of `batches`, and their number, `num_examples`.

  Args:
    sums: (batch, rng) -> what `masked_sums` returns.
    batches: with `mask`.
    rng: folded with the number of the batch.
  """
  totals, count = {}, 0
  for i, batch in enumerate(batches):
    found, size = sharding.to_host(sums(batch, jax.random.fold_in(rng, i)))
    count += int(size)
    for name, value in found.items():
      totals[name] = totals.get(name, 0) + value.astype(np.float64)
  return {**{name: total / count for name, total in totals.items()}, 'num_examples': count}
