"""Samples and reconstructions as picture grids, rows x images without borders."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any

import jax
from jax import Array
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.evals import averaging
from hvae_tpu.figures import images
from hvae_tpu.models import protocol
from hvae_tpu.nn.temperatures import Setting, per_level
from hvae_tpu.settings import setting

NEEDS = ('sample', 'encode', 'decode', 'level_names')


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of evaluation `pictures`, and of `--mode=sample`."""

  num: int = setting(8, least=1)  # images in a row
  # one row of samples each: a number, a tuple of one number per level, or 'linear(a,b)'
  temperatures: tuple[Setting, ...] = setting((1.0, 0.9, 0.8))
  # one number per level: temperatures of one more row of samples; (): no such row
  temperature_per_level: tuple[float, ...] = setting((), least=0)
  # rows of reconstructions from the first i levels only, i at equal distances between 0 and all
  num_partial: int = setting(6, least=0)
  partial_temperature: float = setting(0.1, least=0)  # temperature of the other levels
  # batches of samples that renew the batch statistics before sampling; 0: no renewal
  refresh_iterations: int = setting(0, least=0)
  refresh_num: int = setting(16, least=1)  # samples in each of these batches


def check(options: Options, batch_size: int, where: str = 'config.evals.pictures') -> None:
  """Raises UserError if a row has more images than an evaluation batch."""
  if options.num > batch_size:
    raise UserError(
      f'{where}.num={options.num} images a row are more than config.evals.batch_size={batch_size}; '
      f'lower the one or raise the other'
    )


def make(
  model: Any,
  batches: Callable[..., Iterator],
  options: Options = Options(),
  where: str = 'config.evals.pictures',
  watch: Callable[[Iterator, int], Iterator] = lambda rows, total: rows,
) -> Callable[..., dict[str, np.ndarray]]:
  """Returns the evaluation.

  Args:
    model: model of the run.
    batches: see `evals`; only the first batch is read.
    options: settings of the pictures.
    where: the path of the options in the config, which errors name.
    watch: wraps the iterator of rows, to print progress or to stop; called as (rows, total).

  Returns:
    `run(params, model_state, step, rng)`: uint8 pictures [rows * H, num * W, C]:
    `samples`, a row per temperature; `reconstructions`, originals and full reconstructions;
    `partial`, the grid of the VDVAE release: originals, a row per i, the rows of samples.

  Raises:
    UserError: a temperature that `temperatures.per_level` refuses, or batch statistics are to be
      renewed of a model that has none.
  """
  num, refresh_iterations = options.num, options.refresh_iterations
  if refresh_iterations:
    what = f'{where}.refresh_iterations={refresh_iterations}'
    protocol.require(model, ('refresh',), what, 'set it to 0')
  levels = len(model.level_names)
  named = [(t, f'{where}.temperatures[{i}]') for i, t in enumerate(options.temperatures)]
  if options.temperature_per_level:
    named.append((tuple(options.temperature_per_level), f'{where}.temperature_per_level'))
  levels_at = [per_level(model, setting, key) for setting, key in named]
  points = np.floor(np.linspace(0, 1, options.num_partial + 2) * levels).astype(int)[1:-1]
  cuts = [np.arange(levels) < i for i in (*points, levels)]

  @functools.cache
  def programs(place: jax.sharding.Sharding, parts: int) -> list[Callable[..., Any]]:
    """Returns the jitted (sample, encode, decode) of enough pictures for a row, in `place`."""
    count = -(-num // parts) * parts

    def sample(params, model_state, rng, temperature):
      if refresh_iterations:
        key = jax.random.fold_in(rng, 1)
        model_state = model.refresh(
          params, model_state, key, temperature, refresh_iterations, options.refresh_num
        )
      return model.sample(params, model_state, rng, count, temperature)

    def encode(params, model_state, batch, rng):
      first = {name: value[:count] for name, value in batch.items()}
      return model.encode(params, model_state, first, rng), first['image']

    def decode(params, model_state, latents, rng, given):
      return model.decode(params, model_state, latents, rng, options.partial_temperature, given)

    return [jax.jit(f, out_shardings=place) for f in (sample, encode, decode)]

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, np.ndarray]:
    sample_rng, encode_rng, decode_rng = jax.random.split(rng, 3)
    batch = next(iter(batches()))
    sample, encode, decode = programs(*sharding.example_sharding(batch['image']))
    latents, originals = encode(params, model_state, batch, encode_rng)
    # The same noise at every temperature shows what the temperature does.
    draws = [lambda t=t: sample(params, model_state, sample_rng, t) for t in levels_at]
    draws += [lambda k=k: decode(params, model_state, latents, decode_rng, k) for k in cuts]
    results = (draw() for draw in watch(iter(draws), len(draws)))
    rows = [row[:num] for row in averaging.on_host(results, ahead=1)]
    samples, partial = rows[: len(levels_at)], rows[len(levels_at) :]
    originals = sharding.to_host(originals)[:num]
    grid = lambda rows: images.grid(np.stack(rows))
    return {
      'samples': grid(samples),
      'reconstructions': grid([originals, partial[-1]]),
      'partial': grid([originals, *partial[:-1], *samples]),
    }

  return run
