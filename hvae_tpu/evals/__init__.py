"""Evaluations: numbers and pictures of a trained state, by the name that configs use.

An evaluation is a module with `NEEDS`, the methods of a model that it asks for, `make(model,
batches, **options) -> run`, and `run(params, model_state, step, rng) -> dict` of numbers, uint8
pictures [H, W, C], uint8 films [N, T, H, W, C], and float arrays of two axes, which are the values
of histograms. `batches(split, seq_len, batch_size, interleave_videos)` iterates once over a split
('train', 'valid', 'test'; None: the evaluated one) as global arrays with `mask`. Sizes of 0 are
those of the config. With `interleave_videos`, the first clips of all videos come before their
second clips. A module may `check(options, batch_size)` first.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax

from hvae_tpu.errors import UserError
from hvae_tpu.evals import (
  bernoulli_baseline,
  colour_kmeans_baseline,
  elbo,
  histograms,
  iwae,
  open_loop,
  pictures,
  pruned,
  segmentation,
  ssim,
  teacher_forced,
  textures,
)
from hvae_tpu.models import protocol
from hvae_tpu.training.state import TrainState, eval_params

EVALS = {
  'elbo': elbo,
  'iwae': iwae,
  'pictures': pictures,
  'ssim': ssim,
  'pruned': pruned,
  'histograms': histograms,
  'bernoulli_baseline': bernoulli_baseline,
  'open_loop': open_loop,
  'teacher_forced': teacher_forced,
  'segmentation': segmentation,
  'textures': textures,
  'colour_kmeans_baseline': colour_kmeans_baseline,
}
# Steps between evaluations during training where a config says nothing; the others are off.
EVERY = {'elbo': 10_000, 'pictures': 10_000}
WEIGHTS = {'ema': ('ema',), 'raw': ('raw',), 'both': ('ema', 'raw')}


def check_weights(weights: str, key: str = 'config.evals.weights') -> None:
  """Raises UserError for a name that is not in `WEIGHTS`."""
  if weights not in WEIGHTS:
    raise UserError(f'{key}={weights!r} must be one of {", ".join(WEIGHTS)}')


def scheduled(section: Any, model: Any, say: Callable[[str], None]) -> list[tuple[str, int]]:
  """Returns the evaluations that are due during training, each with its `every`, steps.

  An evaluation that is only on by default, and that the model cannot serve, is left out.

  Args:
    section: `config.evals`.
    model: of the run.
    say: prints a sentence for each evaluation that is left out.
  """
  due = []
  for name in EVALS:
    every = section[name].every
    lacks = protocol.missing(model, EVALS[name].NEEDS)
    if every and lacks and every == EVERY.get(name):
      say(
        f'evaluation {name!r} is left out: it needs {", ".join(lacks)}, which '
        f'{type(model).__name__} lacks'
      )
    elif every:
      due.append((name, every))
  return due


def create(
  name: str, section: Any, model: Any, batches: Callable[..., Iterator], seed: int
) -> Callable[[TrainState], dict[str, Any]]:
  """The named evaluation as a function of the train state.

  Args:
    name: a key of `EVALS`.
    section: `config.evals`: `weights`, and one section of options for each evaluation.
    model: of the run.
    batches: see above.
    seed: of the noise; every call of the result uses the same.

  Returns:
    `run(state)`: results by name. Where weights='both', those of the raw parameters end in `_raw`.

  Raises:
    UserError: an unknown name, or a model without the method that the evaluation needs.
  """
  if name not in EVALS:
    raise UserError(f'evaluation {name!r} must be one of {", ".join(EVALS)}')
  check_weights(section.weights)
  protocol.require(
    model,
    EVALS[name].NEEDS,
    f'evaluation {name!r}',
    f'turn it off with config.evals.{name}.every=0, and leave it out of config.evals.names',
  )
  options = {k: v for k, v in section[name].items() if k != 'every'}
  if hasattr(EVALS[name], 'check'):
    EVALS[name].check(options, section.batch_size)
  evaluate = EVALS[name].make(model, batches, **options)
  rng = jax.random.fold_in(jax.random.key(seed), 2)

  def run(state: TrainState) -> dict[str, Any]:
    results = {}
    for weights in WEIGHTS[section.weights]:
      suffix = '_raw' if weights == 'raw' and section.weights == 'both' else ''
      params = eval_params(state, weights)
      found = evaluate(params, state.model_state, state.step, rng)
      results |= {key + suffix: value for key, value in found.items()}
    return results

  return run
