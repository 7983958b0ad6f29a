"""Histograms of the quantities that a model names, for TensorBoard."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import Array
import numpy as np

from hvae_tpu.devices import sharding

NEEDS = ('histograms',)
MAX_VALUES = 2**16  # of one quantity; more do not change the picture


def make(model: Any, batches: Callable[..., Iterator]) -> Callable[..., dict[str, np.ndarray]]:
  """Returns the evaluation of the first batch of a view.

  Returns:
    `run(params, model_state, step, rng)`: by name, at most about `MAX_VALUES` values, evenly
    spaced, float32 [1, n]; the writer takes arrays of two axes for the values of a histogram.
  """

  @jax.jit
  def values(params, model_state, batch, rng):
    quantities = model.histograms(params, model_state, batch, rng)
    thinned = lambda v: v.reshape(1, -1)[:, :: max(1, v.size // MAX_VALUES)]
    return {name: thinned(v) for name, v in quantities.items()}

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, np.ndarray]:
    return sharding.to_host(values(params, model_state, next(iter(batches())), rng))

  return run
