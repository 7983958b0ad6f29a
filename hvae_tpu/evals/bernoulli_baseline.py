"""What a model without latent variables reaches on binary images: one probability per pixel."""

from collections.abc import Callable, Iterator
from typing import Any

from jax import Array
import numpy as np

from hvae_tpu.devices import sharding

NEEDS = ()


def make(model: Any, batches: Callable[..., Iterator]) -> Callable[..., dict[str, float]]:
  """Negative log-likelihood of the factorised Bernoulli fitted to the training view.

  Returns:
    `run(params, model_state, step, rng)`: `nll`, nats per example of the evaluated view. A pixel's
    probability is its mean over the training view, with one count of each value added.
  """

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, float]:
    ones, count = _sums(batches('train'))
    p = (ones + 1) / (count + 2)
    ones, count = _sums(batches())
    nats = -(ones * np.log(p) + (count - ones) * np.log1p(-p))
    return {'nll': float(nats.sum() / count)}

  return run


def _sums(batches: Iterator) -> tuple[np.ndarray, int]:
  """Sum of the images as probabilities, [H, W, C], and their number."""
  total, count = 0, 0
  for batch in batches:
    sums = (batch['image'] / 255 * batch['mask'][:, None, None, None]).sum(0)
    sums, size = sharding.to_host((sums, batch['mask'].sum()))
    total = total + sums.astype(np.float64)
    count += int(size)
  return total, count
