"""The reference's PyTorch form: its names and layouts, its schedule and its optimizer."""

import functools
from typing import Any

import numpy as np

from hvae_tpu.importers import efficient_vdvae, tables
from hvae_tpu.models.efficient_vdvae import EfficientVDVAE
from hvae_tpu.training import optimizers
from tests.golden_checks.efficient_vdvae import computed, networks, rates
from tests.golden_checks.efficient_vdvae.networks import Cases
from tests.support import golden_files
from tests.support.golden_files import EXACT, Golden, Tolerance, compare

# Rounding at the minimum leaves values above it off by up to 6e-4.
BEFORE, AFTER = Tolerance(1e-4, 0), Tolerance(3e-4, 0)


def torch_cases(golden: Golden) -> Cases:
  checks = {
    'param/*': ('import', _check_import),
    'input/flax_channel_for_torch_channel': ('channels', _check_channels),
    'output/torch_lr_cosine': ('cosine', _check_cosine),
    'output/adamax_params': ('adamax', _check_adamax),
  }
  cases: Cases = {
    name: functools.partial(check, golden)
    for pattern, (name, check) in checks.items()
    if golden.has(pattern)
  }
  for name in golden.names_under('output'):
    if name.startswith('eps'):
      cases[name] = functools.partial(_check_pass, golden, name)
  return cases


@functools.cache
def _imported(golden: Golden) -> tuple[EfficientVDVAE, Any]:
  model = networks.model_of(golden.config)
  entries = efficient_vdvae.PYTORCH.entries(model)
  return model, tables.import_params(entries, golden.under('param'), golden.path.name)


def _check_import(golden: Golden) -> None:
  """Checks that weights equal the JAX file's bit by bit, and that they go back.

  'torch_import_rgb8.npz' belongs to the first 'forward_rgb8_*.npz'; a file may stand alone.
  """
  model, params = _imported(golden)
  stored = golden.under('param')
  back = tables.export_params(efficient_vdvae.PYTORCH.entries(model), params)
  compare(back, stored, lambda _: EXACT)
  assert set(back) == set(stored)
  start = golden.path.stem.replace('torch_import_', 'forward_')
  pairs = [g for _, g in golden_files.find('efficient_vdvae') if g.path.stem.startswith(start)]
  if pairs:
    exported = tables.export_params(networks.entries(model), params)
    compare(exported, pairs[0].under('param'), lambda _: EXACT)


def _check_channels(golden: Golden) -> None:
  model, _ = _imported(golden)
  results = efficient_vdvae.channels_by_colour(model.num_mixtures)
  np.testing.assert_array_equal(results, golden['input/flax_channel_for_torch_channel'])


@functools.cache
def _run(golden: Golden):
  model, params = _imported(golden)
  # The file has the scaled image only.
  values = np.asarray(model.scale_target(np.arange(256, dtype=np.uint8)))
  image = np.searchsorted(values, golden['input/image_nchw'] - 1e-6).astype(np.uint8)
  image = image.transpose(0, 2, 3, 1)
  np.testing.assert_array_equal(
    model.scale_target(image).transpose(0, 3, 1, 2), golden['input/image_nchw']
  )
  run = golden_files.quick_jit(lambda p, image, eps: computed.run(model, p, image, eps)[1])
  return lambda eps: run(params, image, eps)


def _check_pass(golden: Golden, name: str) -> None:
  model, _ = _imported(golden)
  results = _run(golden)(float(name.removeprefix('eps')))
  logits = computed.ours(model, results['logits'])  # our channels stand in PyTorch's order
  compare(
    {
      'logits_nchw': logits.transpose(0, 3, 1, 2),
      'kl_per_layer_nats_per_dim': results['kl_per_layer'].mean(1) / model.num_dims,
      'recon_nats_per_dim': results['nll_per_example'].mean() / model.num_dims,
    },
    golden.under(f'output/{name}'),
    lambda key: computed.FEATURES if key == 'logits_nchw' else computed.LOSS,
  )


def _check_cosine(golden: Golden) -> None:
  first, warmup, start, steps, low = map(float, golden['input/torch_lr_cosine_args'])
  fields = dict(learning_rate=first, warmup_steps=int(warmup), decay_start=int(start))
  fields |= dict(decay_steps=int(steps), min_learning_rate=low, schedule='cosine_torch')
  _, rate = optimizers.create(rates.section(**fields), 0)
  expected = golden['output/torch_lr_cosine']
  results = golden_files.quick_jit(rate)(np.arange(len(expected)))
  turn = int(steps) + 1
  compare({'': results[:turn]}, {'': expected[:turn]}, lambda _: BEFORE)
  compare({'': results[turn:]}, {'': expected[turn:]}, lambda _: AFTER)


def _check_adamax(golden: Golden) -> None:
  results = rates.adamax(golden['input/adamax_param'], golden['input/adamax_grads'], 0.01)
  compare({'': results}, {'': golden['output/adamax_params']}, lambda _: rates.PARAMETERS)
