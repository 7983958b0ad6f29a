"""The five published configurations: sizes, names and shapes of all parameters."""

import functools
import json
import math

import jax
import jax.numpy as jnp

from hvae_tpu.evals import pictures
from tests.golden_checks.vdvae import networks
from tests.golden_checks.vdvae.release import Cases
from tests.support.golden_files import Golden

# Rows of samples in the release; a preset shows the first ones.
TEMPERATURES = (1.0, 0.9, 0.8, 0.7)


def config_cases(golden: Golden) -> Cases:
  presets = dict.fromkeys(key.split('/')[0] for key in golden.keys)
  return {preset: functools.partial(_check_config, golden, preset) for preset in presets}


def _check_config(golden: Golden, preset: str) -> None:
  expected = golden.under(preset)
  hparams = expected.pop('hparams')
  assert expected, 'nothing to compare'
  model = networks.release_model(hparams)
  entries = networks.release_entries(model)
  sizes = {entry.key: math.prod(entry.shape) for entry in entries}
  sides = [int(name.removeprefix('res').split('/')[0]) for name in model.level_names]
  points, temperatures = _picture_rows(model.level_names, hparams['num_variables_visualize'])
  num_temperatures = hparams['num_temperatures_visualize']
  starts = [path[-1] for path in (entry.path for entry in entries) if path[-1].startswith('start_')]
  results = {
    'image_size': model.image_size,
    'total_params': sum(sizes.values()),
    'param_groups': {
      group: sum(size for key, size in sizes.items() if f'{key}.'.startswith(f'{group}.'))
      for group in expected.get('param_groups', ())
    },
    'n_encoder_blocks': sum(run.count for run in model.encoder_runs),
    'n_stochastic_layers': len(sides),
    'stochastic_layers_per_resolution': {
      str(side): sides.count(side) for side in dict.fromkeys(sides)
    },
    'latent_dims_total': sum(side**2 * model.zdim for side in sides),
    'image_dims': model.num_dims,
    'n_tensors': len(entries),
    'bias_xs_resolutions': [int(name.removeprefix('start_')) for name in starts],
    'visualize_lv_points': points,
    'visualize_temperatures': temperatures[:num_temperatures],
  }
  assert set(expected) <= set(results)
  assert {key: results[key] for key in expected} == expected


class Labels:
  """A model whose pictures are one pixel that tells how they were made."""

  def __init__(self, level_names: tuple[str, ...]):
    self.level_names = level_names

  def sample(self, params, state, rng, num, temperature):
    return jnp.full((num, 1, 1, 1), jnp.round(100 * temperature[0]), jnp.uint8)

  def encode(self, params, state, batch, rng):
    return ()

  def decode(self, params, state, latents, rng, temperature, given):
    return jnp.full((1, 1, 1, 1), given.sum(), jnp.uint8)


def _picture_rows(level_names: tuple[str, ...], num_partial: int) -> tuple[list, list]:
  """Returns the levels that each row of the picture grid keeps, and its samples' temperatures."""
  batches = lambda: iter([{'image': jnp.zeros((1, 1, 1, 1), jnp.uint8)}])
  options = pictures.Options(num=1, temperatures=TEMPERATURES, num_partial=num_partial)
  run = pictures.make(Labels(level_names), batches, options)
  rows = run({}, {}, 0, jax.random.key(0))['partial'].ravel().tolist()
  return rows[1 : 1 + num_partial], [row / 100 for row in rows[1 + num_partial :]]


def shape_cases(golden: Golden) -> Cases:
  return {
    preset: functools.partial(_check_shapes, golden, preset)
    for preset in golden.names_under('shapes')
  }


def _check_shapes(golden: Golden, preset: str) -> None:
  """Checks every key and shape, in the order of the state dict."""
  hparams = golden.beside('configs.json')[f'{preset}/hparams']
  entries = networks.release_entries(networks.release_model(hparams))
  results = [(entry.key, list(entry.shape)) for entry in entries]
  assert results == list(json.loads(str(golden[f'shapes/{preset}'])).items())
