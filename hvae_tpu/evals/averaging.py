"""Averages over the examples of a view, computed without letting the devices wait for the host."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError

AHEAD = 4  # batches


def on_host(results: Iterator[Any], ahead: int = AHEAD) -> Iterator[Any]:
  """Yields results as NumPy arrays, in order, while the devices compute the next ones.

  A result is waited for only when the next `ahead` ones are under way, so the devices always have
  work. No more than `ahead` + 1 results, and the batches that they are computed from, use memory.

  Args:
    results: pytrees of jitted functions, computed one by one as they are taken.
    ahead: results under way; small where a result is large.
  """
  under_way = deque()
  for result in results:
    under_way.append(sharding.start_to_host(result))
    if len(under_way) > ahead:
      yield sharding.to_host(under_way.popleft())
  while under_way:
    yield sharding.to_host(under_way.popleft())


def masked_sums(metrics: dict[str, Array], mask: Array) -> tuple[dict[str, Array], Array]:
  """Sums metrics over the batch, for `averages`.

  Args:
    metrics: metrics of a model. Scalars are left out: they are reduced already.
    mask: [B], False on padding.

  Returns:
    The sum of every metric that has the batch as its first axis, and the number of examples.

  Raises:
    UserError: a metric whose first axis is not the batch.
  """
  for name, metric in metrics.items():
    if metric.ndim and len(metric) != len(mask):
      raise UserError(
        f'metric {name!r} has shape {list(metric.shape)}; expected a first axis of {len(mask)}, '
        f'the examples of the batch, or a scalar'
      )
  # `where` rather than a product: a padding row must not matter even if it is not finite.
  masked = lambda m: jnp.where(mask.reshape(-1, *[1] * (m.ndim - 1)), m, 0).sum(0)
  return {name: masked(m) for name, m in metrics.items() if m.ndim}, mask.sum()


def averages(
  sums: Callable[..., tuple[dict[str, Array], Array]], batches: Iterator, rng: Array
) -> dict[str, Any]:
  """Returns means over all examples of `batches`, and their number, `num_examples`.

  The sums of batches are added on the host in float64, in the order of the batches.

  Args:
    sums: (batch, rng) -> result of `masked_sums`.
    batches: with `mask`.
    rng: folded with the number of the batch.
  """
  totals, count = {}, 0
  results = (sums(batch, jax.random.fold_in(rng, i)) for i, batch in enumerate(batches))
  for batch_sums, size in on_host(results):
    count += int(size)
    for name, value in batch_sums.items():
      totals[name] = totals.get(name, 0) + value.astype(np.float64)
  return {**{name: total / count for name, total in totals.items()}, 'num_examples': count}
