"""Evaluations: numbers and pictures of a trained state, by the name that configs use.

An evaluation is a module with

* `NEEDS`, the attributes and methods of a model that it asks for (`models/protocol.py`),
* `Options`, if it has any: a frozen dataclass, which the section `config.evals.<name>` is made of,
* `check(options, batch_size, where)`, if options depend on `config.evals.batch_size`,
* `make(model, batches)`, or with options `make(model, batches, options, where)`. It returns
  `run(params, model_state, step, rng) -> dict` of numbers, uint8 pictures [H, W, C], uint8 films
  [N, T, H, W, C], and float arrays of two axes, which are the values of histograms.

`batches(split, seq_len, batch_size, interleave_videos)` iterates once over a split ('train',
'valid', 'test'; None: the evaluated one) as global arrays with `mask`. Sizes of 0 are those of the
config. With `interleave_videos`, the first clips of all videos come before their second clips.
`where` is the path of the options in the config, which errors name.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
from typing import Any

import jax

from hvae_tpu import settings
from hvae_tpu.devices.distributed import print_once
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
from hvae_tpu.settings import setting
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


@dataclasses.dataclass(frozen=True)
class Settings:
  """Fields of `config.evals` beside the sections of the evaluations."""

  # evaluations that --mode=eval runs
  names: tuple[str, ...] = setting(('elbo',), choices=tuple(EVALS))
  split: str = setting('test')  # view that --mode=eval reads: train, valid, test, or a view's name
  # batches of every evaluation of --mode=eval, in place of its own max_batches; 0: the whole view
  max_batches: int = setting(0, least=0)
  # bits/dim on the test set, printed beside the result; None: not published
  published_bpd: float | None = setting(None, least=0)
  weights: str = setting('ema', choices=tuple(WEIGHTS))  # both: also the raw ones, as `*_raw`
  batch_size: int = setting(32, least=1)  # examples, over all devices


@dataclasses.dataclass(frozen=True)
class Schedule:
  """Field that the section of every evaluation has."""

  every: int = setting(0, least=0)  # steps between evaluations on data.valid_split; 0: never


def defaults() -> dict[str, Any]:
  """Returns the section `config.evals`: `Settings`, and a section for each evaluation."""
  sections = {}
  for name, module in EVALS.items():
    options = settings.defaults(module.Options) if hasattr(module, 'Options') else {}
    sections[name] = {'every': EVERY.get(name, 0), **options}
  return settings.defaults(Settings) | sections


def check(section: Any) -> None:
  """Raises UserError if a field of `config.evals` has a value that it may not have."""
  fields = {field.name for field in dataclasses.fields(Settings)}
  values = {name: value for name, value in section.items() if name in fields}
  settings.checked(Settings, values, 'config.evals')


def check_weights(weights: str, key: str = 'config.evals.weights') -> None:
  """Raises UserError for a name that is not in `WEIGHTS`."""
  if weights not in WEIGHTS:
    raise UserError(f'{key}={weights!r} must be one of {", ".join(WEIGHTS)}')


def scheduled(section: Any, model: Any) -> list[tuple[str, int]]:
  """Returns the evaluations that are due during training, each with its `every`, steps.

  An evaluation that runs only by its default interval, and that the model does not support, is left
  out; a line is printed for it.

  Args:
    section: `config.evals`.
    model: model of the run.

  Raises:
    UserError: a value of `every` that is out of range.
  """
  due = []
  for name in EVALS:
    every = section[name].every
    settings.check(Schedule(every), f'config.evals.{name}')
    lacks = protocol.missing(model, EVALS[name].NEEDS)
    if every and lacks and every == EVERY.get(name):
      print_once(
        f'evaluation {name!r} is left out: it needs {", ".join(lacks)}, which '
        f'{type(model).__name__} lacks'
      )
    elif every:
      due.append((name, every))
  return due


def create(
  name: str,
  section: Any,
  model: Any,
  batches: Callable[..., Iterator],
  seed: int,
  *,
  values: Mapping[str, Any] | None = None,
  where: str = '',
) -> Callable[[TrainState], dict[str, Any]]:
  """Returns the named evaluation as a function of the train state.

  Args:
    name: a key of `EVALS`.
    section: `config.evals`: the fields of `Settings`, and one section for each evaluation.
    model: model of the run.
    batches: see above.
    seed: seed of the noise; every call of the result uses the same.
    values: values of the options; None takes those of `section[name]`.
    where: the path of `values` in the config, which errors name; '' is `config.evals.<name>`.

  Returns:
    `run(state)`: results by name. With weights='both', those of the raw parameters end in `_raw`.

  Raises:
    UserError: an unknown name, a value out of range, or a model that lacks what the evaluation
      needs.
  """
  if name not in EVALS:
    raise UserError(f'evaluation {name!r} must be one of {", ".join(EVALS)}')
  check(section)
  module, where = EVALS[name], where or f'config.evals.{name}'
  protocol.require(
    model,
    module.NEEDS,
    f'evaluation {name!r}',
    f'turn it off with config.evals.{name}.every=0, and leave it out of config.evals.names',
  )
  if hasattr(module, 'Options'):
    if values is None:
      values = {key: value for key, value in section[name].items() if key != 'every'}
    options = settings.checked(module.Options, values, where)
    if hasattr(module, 'check'):
      module.check(options, section.batch_size, where)
    evaluate = module.make(model, batches, options, where)
  else:
    evaluate = module.make(model, batches)
  rng = jax.random.fold_in(jax.random.key(seed), 2)

  def run(state: TrainState) -> dict[str, Any]:
    results = {}
    for weights in WEIGHTS[section.weights]:
      suffix = '_raw' if weights == 'raw' and section.weights == 'both' else ''
      params = eval_params(state, weights)
      numbers = evaluate(params, state.model_state, state.step, rng)
      results |= {key + suffix: value for key, value in numbers.items()}
    return results

  return run
