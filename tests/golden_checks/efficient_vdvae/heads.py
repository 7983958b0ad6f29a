"""Likelihoods and draws from given output channels."""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np

from tests.golden_checks.efficient_vdvae import computed, networks
from tests.golden_checks.efficient_vdvae.networks import Cases
from tests.support import golden_files
from tests.support.golden_files import EXACT, Golden, Tolerance, compare
from tests.support.tracing import constant, noise

# Differences of sigmoids cancel in float32.
PER_PIXEL = Tolerance(3e-4, 1e-6)
GRADIENT = Tolerance(1e-3, 0, of_max=1e-5)
EXACT_KEYS = ('edge_low', 'edge_high', 'grad_is_finite', 'min_pix', 'max_pix', 'num_classes')


def head_cases(golden: Golden) -> Cases:
  cases: Cases = {}
  for name in golden.names_under('output'):
    binary = golden.config[name]['data']['dataset_source'] == 'binarized_mnist'
    check = _check_bernoulli if binary else _check_mixture
    cases[name] = functools.partial(check, golden, name)
  for name in golden.names_under('grad'):
    cases[f'{name}_grad'] = functools.partial(_check_gradient, golden, name)
  return cases


@functools.cache
def _evaluated(golden: Golden, name: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns NLL per pixel on the whole grid, and the gradient of its sum over modelled pixels."""
  model = networks.head_of(golden.config[name])
  target = golden[f'input/{name}/image']
  crop = slice(model.target_crop, model.image_size - model.target_crop)

  def total(logits):
    nll = -model.log_likelihood(computed.ours(model, logits), target)
    return nll[:, crop, crop].sum(), nll

  run = golden_files.quick_jit(jax.value_and_grad(total, has_aux=True))
  (_, nll), grad = run(golden[f'input/{name}/logits'])
  return nll, grad


def _check_gradient(golden: Golden, name: str) -> None:
  compare({'logits': _evaluated(golden, name)[1]}, golden.under(f'grad/{name}'), lambda _: GRADIENT)


def _check_mixture(golden: Golden, name: str) -> None:
  model, stored = networks.head_of(golden.config[name]), golden.under(f'output/{name}')
  image, colours = golden[f'input/{name}/image'], model.image_channels
  if f'input/{name}/image_uint8' in golden:
    scaled = model.scale_target(golden[f'input/{name}/image_uint8'])
    compare({'image': scaled}, {'image': image}, lambda _: EXACT)
  nll, grad = _evaluated(golden, name)
  per_dim = nll.mean() / colours
  lowest, highest = (float(model.scale_target(np.uint8(v))) for v in (0, 255))
  results: dict[str, Any] = {
    'nll_per_pixel': nll,
    'log_likelihood_per_example': -nll.sum((1, 2)),
    'bits_per_dim': nll.mean((1, 2)) / (colours * math.log(2)),
    'loss_nats_per_dim': per_dim,
    'metric_bits_per_dim': per_dim / math.log(2),
    'grad_is_finite': np.isfinite(grad),
    'edge_low': image == lowest,
    'edge_high': image == highest,
    'min_pix': lowest,
    'max_pix': highest,
    'num_classes': 2**model.num_bits - 1,
  }
  for key in stored:
    if key.startswith('sample_'):
      u, temperature = map(float, key.removeprefix('sample_u').split('_T'))
      results[key] = _draw(golden, name, u, temperature)
  compare(results, stored, _tolerance)


def _draw(golden: Golden, name: str, u: float, temperature: float) -> np.ndarray:
  model = networks.head_of(golden.config[name])
  model = dataclasses.replace(model, output_temperature=temperature)
  with noise(uniform=constant(u)):
    logits = computed.ours(model, golden[f'input/{name}/logits'])
    return np.asarray(model.draw(logits, jax.random.key(0)))


def _tolerance(key: str) -> Tolerance:
  if key in EXACT_KEYS:
    return EXACT
  return computed.FEATURES if key.startswith(('sample', 'probs')) else PER_PIXEL


def _check_bernoulli(golden: Golden, name: str) -> None:
  model, stored = networks.head_of(golden.config[name]), golden.under(f'output/{name}')
  crop = slice(model.target_crop, model.image_size - model.target_crop)
  nll = _evaluated(golden, name)[0][:, crop, crop]
  results: dict[str, Any] = {
    'nll_per_pixel': nll,
    'log_likelihood_per_example_nats': -nll.sum((1, 2)),
    'loss_nats_per_dim': nll.mean(),
    'metric_bits_per_dim': nll.mean() / math.log(2),
  }
  for key in stored:
    if key.startswith('probs_T'):
      results[key] = _draw(golden, name, 0.5, float(key.removeprefix('probs_T')))
      results[key] = results[key][:, crop, crop]
  compare(results, stored, _tolerance)
