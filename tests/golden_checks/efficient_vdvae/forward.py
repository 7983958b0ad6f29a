"""Forward passes, pruned ones, gradients and samples."""

from collections.abc import Callable
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hvae_tpu.evals import pruned
from hvae_tpu.importers import tables
from hvae_tpu.metrics import ssim
from hvae_tpu.models.efficient_vdvae import EfficientVDVAE
from hvae_tpu.nn import distributions
from tests.golden_checks.efficient_vdvae import computed, networks
from tests.golden_checks.efficient_vdvae.networks import Cases
from tests.support import golden_files
from tests.support.golden_files import EXACT, Golden, Tolerance, compare
from tests.support.tracing import constant, noise

RNG = jax.random.key(0)
# The KL without beta can be negative, and groups that nearly cancel magnify rounding in gamma.
CANCELLING = Tolerance(1e-4, 1e-6)


SAMPLED = ('sample_', 'ssim_')  # results of a pass that are made of one draw


def forward_cases(golden: Golden) -> Cases:
  cases: Cases = {}
  if 'input/image' in golden:
    cases['inputs'] = functools.partial(_check_inputs, golden)
  for name in golden.names_under('output'):
    if re.fullmatch(r'eps[\d.]+', name):
      results = golden.names_under(f'output/{name}')
      if not all(result.startswith(SAMPLED) for result in results):
        cases[name] = functools.partial(_check_pass, golden, name)
      if any(result.startswith(SAMPLED) for result in results):
        cases[f'{name}_drawn'] = functools.partial(_check_drawn, golden, name)
    elif name.startswith('masked_'):
      cases[name] = functools.partial(_check_masked, golden, name)
    elif name.startswith('gen_'):
      cases[name] = functools.partial(_check_generation, golden, name)
    else:
      assert name in ('grad_loss', 'grad_global_norm'), f'nothing checks output/{name}'
  if golden.has('grad/*', 'output/grad_*'):
    cases['grad'] = functools.partial(_check_gradient, golden)
  return cases


def _check_inputs(golden: Golden) -> None:
  model = networks.model_of(golden.config)
  image = computed.pixels(model, golden['input/image_uint8'])
  compare({'image': model.scale_target(image)}, {'image': golden['input/image']}, lambda _: EXACT)


@functools.cache
def _compiled(golden: Golden) -> Callable[..., Any]:
  """Returns (eps, step) -> (results of a pass by the names of the file, gradient)."""
  model = networks.model_of(golden.config)
  params, image = networks.read_params(golden, model), golden['input/image_uint8']

  def run(params, image, eps, step):
    def loss(params):
      loss, results = computed.run(model, params, image, eps, step)
      return loss, {**results, 'loss': loss}

    (_, results), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return {**results, 'grad_norm': optax.tree.norm(grads)}, grads

  jitted = golden_files.quick_jit(run)
  return functools.cache(lambda eps, step: jitted(params, image, eps, step))


def _eps(name: str) -> float:
  """Returns the number in place of every latent draw: 'masked_eps1' -> 1.0."""
  return float(re.search(r'eps([\d.]+)', name)[1])


def _tolerance(model: EfficientVDVAE) -> Callable[[str], Tolerance]:
  def tolerance(name: str) -> Tolerance:
    if name in ('loss', 'kl_div'):
      legacy = model.legacy_jax_logstd_kl and model.distribution_base == 'logstd'
      return CANCELLING if legacy else computed.LOSS
    return computed.tolerance(name)

  return tolerance


def _steps(golden: Golden) -> list[int]:
  """Returns the steps of the losses of a pass; the last step also made the other results."""
  return list(map(int, golden['input/loss_steps'])) if 'input/loss_steps' in golden else [0]


def _check_pass(golden: Golden, name: str) -> None:
  model, run = networks.model_of(golden.config), _compiled(golden)
  passes = [run(_eps(name), step)[0] for step in _steps(golden)]
  results = passes[-1] | {
    'loss': np.array([p['loss'] for p in passes]),
    'kl_div': np.array([p['kl_div'] for p in passes]),
  }
  share = golden.config['synthesis']['variate_masks_quantile']
  results['variate_mask_from_div_stats'] = pruned.most_active(results['div_stats'], share)
  expected = {
    key: value
    for key, value in golden.under(f'output/{name}').items()
    if not key.startswith(SAMPLED)
  }
  compare(results, expected, _tolerance(model))


@functools.cache
def _sampler(golden: Golden) -> Callable[..., Any]:
  """(logits in the reference's order, u) -> one draw, the padding cut off."""
  model = networks.model_of(golden.config)

  def draw(logits, u):
    with noise(uniform=constant(u)):
      return _cropped(model, model.draw(computed.ours(model, logits), RNG))

  return golden_files.quick_jit(draw)


def _cropped(model: EfficientVDVAE, image: Any) -> Any:
  crop = slice(model.target_crop, model.image_size - model.target_crop)
  return image[:, crop, crop]


def _check_drawn(golden: Golden, name: str) -> None:
  model, stored = networks.model_of(golden.config), golden.under(f'output/{name}')
  logits = _compiled(golden)(_eps(name), _steps(golden)[-1])[0]['logits']
  expected = {key: value for key, value in stored.items() if key.startswith(SAMPLED)}
  draws = dict.fromkeys(key.removeprefix('ssim_vs_') for key in expected)
  results = {key: _sampler(golden)(logits, float(key.removeprefix('sample_u'))) for key in draws}
  target = distributions.to_uint8(model.scale_target(golden['input/image_uint8']))
  for key in expected:
    if key.startswith('ssim_vs_'):
      sample = distributions.to_uint8(results[key.removeprefix('ssim_vs_')])
      results[key] = ssim.similarity(target, sample).mean()
  tolerance = lambda key: networks.SSIM if key.startswith('ssim') else computed.FEATURES
  compare(results, expected, tolerance)


def _check_gradient(golden: Golden) -> None:
  model = networks.model_of(golden.config)
  results, grads = _compiled(golden)(0.0, int(golden['input/grad_step']))
  scalars = {'grad_loss': results['loss'], 'grad_global_norm': results['grad_norm']}
  tolerances = {'grad_loss': _tolerance(model)('loss'), 'grad_global_norm': Tolerance(1e-4, 0)}
  if stored := golden_files.select(golden, scalars):
    compare(scalars, stored, tolerances.__getitem__)
  if golden.has('grad/*'):
    ours = tables.export_params(networks.entries(model), grads)
    networks.compare_gradients(ours, golden.under('grad'))


@functools.cache
def _masked(golden: Golden) -> Callable[[float], Any]:
  model = networks.model_of(golden.config)
  params, image = networks.read_params(golden, model), golden['input/image_uint8']
  variates = golden['input/variate_masks'] > 0

  def run(params, image, eps, variates):
    batch = {'image': computed.pixels(model, image)}
    with computed.watched() as seen, noise(normal=constant(eps)):
      metrics = model.pruned(params, {}, batch, RNG, variates)
    to_nats = 1 / model.num_dims
    return computed.results(model, seen[0], metrics) | {
      'loss': metrics['neg_elbo'].mean() * to_nats,
      'kl_div': metrics['kl'].mean() * to_nats,
    }

  jitted = golden_files.quick_jit(run)
  return lambda eps: jitted(params, image, eps, variates)


def _check_masked(golden: Golden, name: str) -> None:
  expected, results = golden.under(f'output/{name}'), _masked(golden)(_eps(name))
  mask = golden['input/variate_masks'] > 0
  results['encode_layer_ids'] = np.flatnonzero(mask.any(1))
  for key in expected:
    if match := re.fullmatch(r'encode_layer_(\d+)', key):
      group = int(match[1])
      pair = [results[f'posterior_{group}_{part}'] for part in ('mean', 'scale')]
      results[key] = np.stack(pair, axis=-1)[..., mask[group], :]
  model = networks.model_of(golden.config)
  tolerances = {'encode_layer_ids': EXACT}
  compare(results, expected, lambda key: tolerances.get(key) or _tolerance(model)(key))


@functools.cache
def _generator(golden: Golden) -> Callable[..., Any]:
  """Returns (eps, temperatures [L], u) -> z of every group and one draw."""
  model = networks.model_of(golden.config)
  params, num = networks.read_params(golden, model), len(golden['input/image_uint8'])

  def generate(params, eps, temperatures, u):
    with computed.watched() as seen, noise(normal=constant(eps), uniform=constant(u)):
      model.sample(params, {}, RNG, num, temperatures)
      results = computed.features(model, seen[0])
      image = _cropped(model, model.draw(computed.ours(model, results['logits']), RNG))
    return {**results, 'image': image}

  return functools.partial(golden_files.quick_jit(generate), params)


def _check_generation(golden: Golden, name: str) -> None:
  model, expected = networks.model_of(golden.config), golden.under(f'output/{name}')
  eps, setting = re.fullmatch(r'gen_eps([\d.]+)_(.*)', name).groups()
  temperatures = jnp.asarray(golden[f'input/temperatures_{setting}'])[model.level_of_groups]
  if match := re.fullmatch(r'linear([\d.]+)_([\d.]+)', setting):
    ramp = model.temperature_ramp(*map(float, match.groups()))
    np.testing.assert_allclose(ramp, temperatures, rtol=1e-6)
  draws = [key.removeprefix('image_u') for key in expected if key.startswith('image_u')]
  results: dict[str, Any] = {}
  for u in draws or ['0.5']:
    results |= _generator(golden)(float(eps), temperatures, float(u))
    results[f'image_u{u}'] = results['image']
  results |= {'z_first': results['z_0'], 'z_last': results[f'z_{len(temperatures) - 1}']}
  compare(results, expected, lambda _: computed.FEATURES)
