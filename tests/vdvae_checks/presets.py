"""The five published configurations: sizes, names and shapes of all parameters."""

import functools
import json
import math

import numpy as np

from tests.golden_files import Golden
from tests.vdvae_checks import common
from tests.vdvae_checks.release import Cases

TEMPERATURES = [1.0, 0.9, 0.8, 0.7]


def config_cases(golden: Golden) -> Cases:
  presets = dict.fromkeys(key.split('/')[0] for key in golden.keys)
  return {preset: functools.partial(_check_config, golden, preset) for preset in presets}


def _check_config(golden: Golden, preset: str) -> None:
  expected = golden.under(preset)
  hparams = expected.pop('hparams')
  model = common.release_model(hparams)
  entries = common.release_entries(model)
  sizes = {entry.key: math.prod(entry.shape) for entry in entries}
  sides = [int(name.removeprefix('res').split('/')[0]) for name in model.level_names]
  num_groups, num_temperatures = (
    hparams[f'num_{kind}_visualize'] for kind in ('variables', 'temperatures')
  )
  kept = [path[-1] for path in (entry.path for entry in entries) if path[-1].startswith('start_')]
  found = {
    'image_size': model.image_size,
    'total_params': sum(sizes.values()),
    'param_groups': {
      group: sum(size for key, size in sizes.items() if f'{key}.'.startswith(f'{group}.'))
      for group in expected['param_groups']
    },
    'n_encoder_blocks': sum(run.count for run in model.encoder_runs),
    'n_stochastic_layers': len(sides),
    'stochastic_layers_per_resolution': {
      str(side): sides.count(side) for side in dict.fromkeys(sides)
    },
    'latent_dims_total': sum(side**2 * model.zdim for side in sides),
    'image_dims': model.num_dims,
    'n_tensors': len(entries),
    'bias_xs_resolutions': [int(name.removeprefix('start_')) for name in kept],
    'visualize_lv_points': np.floor(np.linspace(0, 1, num_groups + 2) * len(sides))
    .astype(int)[1:-1]
    .tolist(),
    'visualize_temperatures': TEMPERATURES[:num_temperatures],
  }
  assert found == expected


def shape_cases(golden: Golden) -> Cases:
  return {
    preset: functools.partial(_check_shapes, golden, preset)
    for preset in golden.names_under('shapes')
  }


def _check_shapes(golden: Golden, preset: str) -> None:
  """Every key and shape, in the order of the state dict."""
  hparams = golden.beside('configs.json')[f'{preset}/hparams']
  entries = common.release_entries(common.release_model(hparams))
  found = [(entry.key, list(entry.shape)) for entry in entries]
  assert found == list(json.loads(str(golden[f'shapes/{preset}'])).items())
