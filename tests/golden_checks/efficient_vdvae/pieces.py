"""Similarity of pictures, splits of the data, and which variates are kept."""

import functools
import re

import numpy as np

from hvae_tpu.evals import pruned
from hvae_tpu.metrics import ssim
from hvae_tpu.nn import distributions
from tests.golden_checks.efficient_vdvae.networks import SSIM, Cases
from tests.support import golden_files
from tests.support.golden_files import EXACT, Golden, Tolerance, compare


def ssim_cases(golden: Golden) -> Cases:
  cases: Cases = {}
  for name in golden.names_under('output'):
    if match := re.fullmatch(r'ssim_(?:per_example|mean)_(\d+)', name):
      cases[match[1]] = functools.partial(_check_ssim, golden, match[1])
    else:
      assert name == 'kernel', f'nothing checks output/{name}'
      cases['kernel'] = functools.partial(_check_kernel, golden)
  return cases


def _check_ssim(golden: Golden, size: str) -> None:
  pair = (distributions.to_uint8(golden[f'input/{side}_{size}']) for side in ('target', 'output'))
  values = ssim.similarity(*pair)
  results = {f'ssim_per_example_{size}': values, f'ssim_mean_{size}': values.mean()}
  compare(results, golden_files.select(golden, results), lambda _: SSIM)


def _check_kernel(golden: Golden) -> None:
  kernel = np.outer(ssim.window(), ssim.window())
  compare({'kernel': kernel}, {'kernel': golden['output/kernel']}, lambda _: Tolerance(1e-5, 0))


# Patterns of keys; each one shows that a file holds splits and masks.
DATA_KEYS = (
  ('output/test_permutation_*',),
  ('output/mnist_*',),
  ('output/normalized_bits*',),
  ('output/quantile_*',),
)


def data_cases(golden: Golden) -> Cases:
  cases: Cases = {}
  for name in golden.names_under('output'):
    if name.startswith('test_permutation_'):
      cases['splits'] = functools.partial(_check_split, golden, name)
    elif name.startswith('mnist_'):
      cases['binarisation'] = functools.partial(_check_binarisation, golden)
    elif name.startswith('normalized_bits'):
      cases[name] = functools.partial(_check_bits, golden, name)
    else:
      name = name.replace('threshold', 'mask')
      cases[name] = functools.partial(_check_mask, golden, name)
  return cases


def _check_split(golden: Golden, name: str) -> None:
  """Checks the split of MNIST and CIFAR-10: the first half validates, the second tests."""
  stored = golden[f'output/{name}']
  order = np.arange(len(stored))
  np.random.RandomState(golden.config['test_random_state']).shuffle(order)
  np.testing.assert_array_equal(order, stored)


NUM_TRAIN, NUM_HELD_OUT, PADDED = 60_000, 5_000, 32  # images of MNIST, and their size


def _check_binarisation(golden: Golden) -> None:
  """Checks the static noise: one generator, after the shuffle of the training set."""
  rng, order = np.random.RandomState(golden['input/seed']), np.arange(NUM_TRAIN)
  rng.shuffle(order)
  expected = {key: v for key, v in golden.under('output').items() if key.startswith('mnist_')}
  results = {}
  for key in expected:
    if match := re.fullmatch(r'mnist_train_permutation_first(\d+)', key):
      results[key] = order[: int(match[1])]
  for side in ('val', 'test'):
    noise = rng.uniform(size=(NUM_HELD_OUT, PADDED, PADDED, 1))[..., 0]
    results[f'mnist_{side}_noise_mean'] = noise.mean()
    for key in expected:
      if match := re.fullmatch(rf'mnist_{side}_noise_image(\d+)(?:_row(\d+))?', key):
        image = noise[int(match[1])]
        results[key] = image[int(match[2])] if match[2] else image
  compare(results, expected, lambda _: Tolerance(1e-6, 1e-7))


def _check_bits(golden: Golden, name: str) -> None:
  bits = int(name.removeprefix('normalized_bits'))
  results = distributions.scale_pixels(np.arange(256, dtype=np.uint8), bits)
  compare({name: results}, {name: golden[f'output/{name}']}, lambda _: EXACT)


def _check_mask(golden: Golden, name: str) -> None:
  rows, share = re.fullmatch(r'quantile_mask_(\d+)_([\d.]+)', name).groups()
  stats = golden[f'input/div_stats_{rows}']
  mask = pruned.most_active(stats, float(share))
  if f'output/{name}' in golden:
    compare({name: mask}, {name: golden[f'output/{name}']}, lambda _: EXACT)
  threshold = f'output/{name.replace("mask", "threshold")}'
  if threshold in golden:
    np.testing.assert_array_equal(mask, stats > golden[threshold])
