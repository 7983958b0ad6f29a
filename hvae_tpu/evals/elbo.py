"""ELBO, distortion and rate: averages over a view of the metrics that the model reports."""

from collections.abc import Callable, Iterator
import dataclasses
import itertools
from typing import Any

import jax
from jax import Array

from hvae_tpu.devices import distributed
from hvae_tpu.evals import averaging
from hvae_tpu.settings import setting

NEEDS = ('loss',)


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of evaluation `elbo`."""

  # batches of the view, the same ones at every call; 0: all, as --mode=eval takes them
  max_batches: int = setting(0, least=0)


def make(
  model: Any,
  batches: Callable[..., Iterator],
  options: Options = Options(),
  where: str = 'config.evals.elbo',
) -> Callable[..., dict[str, Any]]:
  """Returns the evaluation, with one posterior sample per example.

  Returns:
    `run(params, model_state, step, rng)`: mean of each metric whose first axis is the batch, over
    the exact number of examples, which is reported as `num_examples`. Scalar metrics are left out,
    and named on the output.
  """
  sums = program(model, _tell_left_out)

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, Any]:
    measured = itertools.islice(batches(), options.max_batches or None)
    score = lambda batch, rng: sums(params, model_state, batch, step, rng)
    return averaging.averages(score, measured, rng)

  return run


def program(
  model: Any, tell_left_out: Callable[[list[str]], None] = lambda names: None
) -> Callable[..., tuple[dict[str, Array], Array]]:
  """Returns the jitted (params, model_state, batch, step, rng) -> `masked_sums` of one batch.

  Args:
    model: model of the run.
    tell_left_out: called with the names of the scalar metrics, when the program is traced.
  """

  @jax.jit
  def sums(params, model_state, batch, step, rng):
    _, (_, metrics) = model.loss(params, model_state, batch, rng=rng, step=step, train=False)
    tell_left_out([name for name, metric in metrics.items() if not metric.ndim])
    return averaging.masked_sums(metrics, batch['mask'])

  return sums


def _tell_left_out(names: list[str]) -> None:
  if names:
    distributed.print_once(
      f'evaluation elbo leaves out {", ".join(sorted(names))}: no values per example'
    )
