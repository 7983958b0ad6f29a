"""Samples and reconstructions as picture grids, rows x images without borders."""

from collections.abc import Callable, Iterator
import functools
from typing import Any

import jax
from jax import Array
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.figures import images as images_lib
from hvae_tpu.nn.temperatures import Setting, per_level

NEEDS = ('sample', 'encode', 'decode', 'level_names')


def check(options: dict[str, Any], batch_size: int) -> None:
  """Raises UserError if a row has no images, or more than one evaluation batch."""
  if options['num'] < 1:
    raise UserError(f'{options["num"]} images a row (num) are too few; give at least 1')
  if options['num'] > batch_size:
    raise UserError(
      f'{options["num"]} images a row (num) are more than config.evals.batch_size={batch_size}; '
      f'lower the one or raise the other'
    )


def make(
  model: Any,
  batches: Callable[..., Iterator],
  num: int = 8,
  temperatures: tuple[Setting, ...] = (1.0, 0.9, 0.8, 0.7),
  temperature_per_level: tuple[float, ...] = (),
  num_partial: int = 6,
  partial_temperature: float = 0.1,
  refresh_iterations: int = 0,
  refresh_num: int = 16,
  watch: Callable[[Iterator, int], Iterator] = lambda rows, total: rows,
) -> Callable[..., dict[str, np.ndarray]]:
  """Pictures of `num` images a row.

  Args:
    temperatures: one row of samples for each; see `temperatures.per_level`.
    temperature_per_level: if not empty, one more row, sampled at these, one per level.
    num_partial: rows of reconstructions from the first i latents only, the others being drawn at
      `partial_temperature`; i at equal distances between none and all.
    refresh_iterations: if not 0, samples are drawn after batch statistics were renewed with so many
      batches of `refresh_num` samples at their temperature (models with `refresh`).
    watch: passes on what is drawn, a row at a time, of `total`; to show progress or to stop.

  Returns:
    `run(params, model_state, step, rng)`: uint8 pictures [rows * H, num * W, C]:
    `samples`, a row per temperature; `reconstructions`, originals and full reconstructions;
    `partial`, the grid of the VDVAE release: originals, a row per i, the rows of samples.

  Raises:
    UserError: a temperature that `temperatures.per_level` refuses, or statistics are to be renewed
      of a model that has none.
  """
  if refresh_iterations and not hasattr(model, 'refresh'):
    raise UserError(
      f'refresh_iterations={refresh_iterations} needs refresh(), which {type(model).__name__} '
      f'lacks; set it to 0'
    )
  levels = len(model.level_names)
  named = [(t, f'temperatures[{i}]') for i, t in enumerate(temperatures)]
  if temperature_per_level:
    named.append((tuple(temperature_per_level), 'temperature_per_level'))
  levels_at = [per_level(model, setting, key) for setting, key in named]
  points = np.floor(np.linspace(0, 1, num_partial + 2) * levels).astype(int)[1:-1]
  kept = [np.arange(levels) < i for i in (*points, levels)]

  @functools.cache
  def programs(place: jax.sharding.Sharding, parts: int) -> list[Callable[..., Any]]:
    """Jitted (sample, encode, decode), whose pictures lie in `place`; enough for a row."""
    count = -(-num // parts) * parts

    def sample(params, model_state, rng, temperature):
      if refresh_iterations:
        key = jax.random.fold_in(rng, 1)
        model_state = model.refresh(
          params, model_state, key, temperature, refresh_iterations, refresh_num
        )
      return model.sample(params, model_state, rng, count, temperature)

    def encode(params, model_state, batch, rng):
      first = {name: value[:count] for name, value in batch.items()}
      return model.encode(params, model_state, first, rng), first['image']

    def decode(params, model_state, latents, rng, given):
      return model.decode(params, model_state, latents, rng, partial_temperature, given)

    return [jax.jit(f, out_shardings=place) for f in (sample, encode, decode)]

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, np.ndarray]:
    sample_rng, encode_rng, decode_rng = jax.random.split(rng, 3)
    batch = next(iter(batches()))
    sample, encode, decode = programs(*sharding.by_example(batch['image']))
    latents, originals = encode(params, model_state, batch, encode_rng)
    # The same noise at every temperature shows what the temperature does.
    draws = [lambda t=t: sample(params, model_state, sample_rng, t) for t in levels_at]
    draws += [lambda k=k: decode(params, model_state, latents, decode_rng, k) for k in kept]
    row = lambda images: sharding.to_host(images)[:num]
    rows = [row(draw()) for draw in watch(iter(draws), len(draws))]
    samples, partial = rows[: len(levels_at)], rows[len(levels_at) :]
    originals = row(originals)
    grid = lambda rows: images_lib.grid(np.stack(rows))
    return {
      'samples': grid(samples),
      'reconstructions': grid([originals, partial[-1]]),
      'partial': grid([originals, *partial[:-1], *samples]),
    }

  return run
