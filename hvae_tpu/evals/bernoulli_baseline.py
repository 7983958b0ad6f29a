"""Likelihood of binary images under a model without latent variables: a probability per pixel."""

from collections.abc import Callable, Iterator
from typing import Any

from jax import Array
import numpy as np

from hvae_tpu.evals import averaging

NEEDS = ()


def make(model: Any, batches: Callable[..., Iterator]) -> Callable[..., dict[str, float]]:
  """Returns the evaluation: the factorised Bernoulli fitted to the training view.

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
  """Returns the sum of the images as probabilities, [H, W, C], and their number."""
  total, count = 0, 0
  for image, size in averaging.on_host(_masked_sum(batch) for batch in batches):
    total = total + image.astype(np.float64)
    count += int(size)
  return total, count


def _masked_sum(batch: dict[str, Array]) -> tuple[Array, Array]:
  images = batch['image'] / 255 * batch['mask'][:, None, None, None]
  return images.sum(0), batch['mask'].sum()
