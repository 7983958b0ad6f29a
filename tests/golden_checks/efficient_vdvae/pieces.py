"""Similarity of pictures, splits of the data, and which variates are kept."""

import functools
import re

import numpy as np

from hvae_tpu.evals import pruned
from hvae_tpu.metrics import ssim
from hvae_tpu.nn import distributions
from tests.golden_checks.efficient_vdvae.networks import SSIM, Cases
from tests.support.golden_files import EXACT, Golden, Tolerance, compare


def ssim_cases(golden: Golden) -> Cases:
  sizes = [name.removeprefix('target_') for name in golden.names_under('input')]
  cases: Cases = {
    size: functools.partial(_check_ssim, golden, size) for size in sizes if size.isdigit()
  }
  return {**cases, 'kernel': functools.partial(_check_kernel, golden)}


def _check_ssim(golden: Golden, size: str) -> None:
  pair = (distributions.to_uint8(golden[f'input/{side}_{size}']) for side in ('target', 'output'))
  values = ssim.similarity(*pair)
  found = {f'ssim_per_example_{size}': values, f'ssim_mean_{size}': values.mean()}
  compare(found, {key: golden[f'output/{key}'] for key in found}, lambda _: SSIM)


def _check_kernel(golden: Golden) -> None:
  found = np.outer(ssim.window(), ssim.window())
  compare({'kernel': found}, {'kernel': golden['output/kernel']}, lambda _: Tolerance(1e-5, 0))


def data_cases(golden: Golden) -> Cases:
  cases: Cases = {
    'splits': functools.partial(_check_split, golden),
    'binarisation': functools.partial(_check_binarisation, golden),
  }
  for name in golden.names_under('output'):
    if name.startswith('normalized_bits'):
      cases[name] = functools.partial(_check_bits, golden, name)
    elif name.startswith('quantile_mask_'):
      cases[name] = functools.partial(_check_mask, golden, name)
  return cases


def _check_split(golden: Golden) -> None:
  """The rule behind the views of MNIST and CIFAR-10: the first half validates, the second tests."""
  order = np.arange(10_000)
  np.random.RandomState(golden.config['test_random_state']).shuffle(order)
  np.testing.assert_array_equal(order, golden['output/test_permutation_seed101'])


def _check_binarisation(golden: Golden) -> None:
  """The reference's static noise: after the shuffle of the training set, by one generator."""
  rng, order = np.random.RandomState(golden['input/seed']), np.arange(60_000)
  rng.shuffle(order)
  found = {'mnist_train_permutation_first16': order[:16]}
  for side in ('val', 'test'):
    draws = rng.uniform(size=(5000, 32, 32, 1))[..., 0]
    found[f'mnist_{side}_noise_image0'] = draws[0]
    found[f'mnist_{side}_noise_image4999_row2'] = draws[-1, 2]
    found[f'mnist_{side}_noise_mean'] = draws.mean()
  expected = {key: golden[f'output/{key}'] for key in found}
  compare(found, expected, lambda _: Tolerance(1e-6, 1e-7))


def _check_bits(golden: Golden, name: str) -> None:
  bits = int(name.removeprefix('normalized_bits'))
  found = distributions.scale_pixels(np.arange(256, dtype=np.uint8), bits)
  compare({name: found}, {name: golden[f'output/{name}']}, lambda _: EXACT)


def _check_mask(golden: Golden, name: str) -> None:
  rows, share = re.fullmatch(r'quantile_mask_(\d+)_([\d.]+)', name).groups()
  stats = golden[f'input/div_stats_{rows}']
  threshold = golden[f'output/{name.replace("mask", "threshold")}']
  found = pruned.most_active(stats, float(share))
  compare({name: found}, {name: golden[f'output/{name}']}, lambda _: EXACT)
  np.testing.assert_array_equal(found, stats > threshold)
