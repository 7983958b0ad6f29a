"""Forward passes in training and evaluation, gradients, samples and recalibration."""

from collections.abc import Callable
import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hvae_tpu.importers import tables
from hvae_tpu.models.nvae import NVAE, objective
from tests.golden_checks.nvae import computed, networks, trajectory
from tests.golden_checks.nvae.computed import ACTIVATION, KL, SUM, channels_last
from tests.golden_checks.nvae.networks import BUFFERS, SCHEDULE, SPECTRAL, Cases
from tests.support import golden_files
from tests.support.golden_files import EXACT, Golden, Tolerance, compare
from tests.support.tracing import constant, noise

RNG = jax.random.key(0)
GRADIENT = 1e-3  # relative error of the norm
TOLERANCES = {
  **computed.TOLERANCES,
  **dict.fromkeys(('loss', 'bn_loss', 'neg_log_p', 'nelbo', 'bn_gamma_loss'), SUM),
  **dict.fromkeys(('balanced_kl', 'kl_balance_coeffs', 'kl_balanced_per_example'), KL),
  **dict.fromkeys(('spectral_loss', 'regularization_loss'), SPECTRAL),
  'regularization_loss_v0_ones': SPECTRAL,
  'sr_u': Tolerance(0, 1e-2),
  'grad_norm': Tolerance(GRADIENT, 0),
  'buffers_concat': BUFFERS,
  'warm_up_coeff': SCHEDULE,
}
MOSTLY = ('elementwise_log_prob', 'elementwise_log_p')


def model_cases(golden: Golden) -> Cases:
  """Returns the checks of a file of a whole model."""
  cases: Cases = {'inputs': functools.partial(_check_inputs, golden)}
  cases |= _cases_under(golden, 'output', '')
  if golden.has('grad/*'):
    cases['grad'] = functools.partial(_check_gradient, golden)
  for name in golden.config.get('_variants', {}):
    cases |= {
      f'{name}_{case}': check
      for case, check in _cases_under(golden, f'variant/{name}', name).items()
    }
  return cases | trajectory.trajectory_cases(golden)


def _cases_under(golden: Golden, prefix: str, variant: str) -> Cases:
  kinds = {
    r'(train|eval)_eps[\d.]+': _check_pass,
    r'iw': _check_weights,
    r'sample_eval_eps[\d.]+_t.*': _check_sample,
    r'recal\d+_eps[\d.]+_t.*': _check_recalibration,
    r'generate_from_latents.*': _check_given_noise,
    r'encode_eps[\d.]+': _check_encode,
    r'interpolate_alpha.*': _check_interpolation,
  }
  cases: Cases = {}
  for name in golden.names_under(prefix):
    checks = [check for kind, check in kinds.items() if re.fullmatch(kind, name)]
    assert len(checks) == 1, f'nothing checks {prefix}/{name}'
    cases[name] = functools.partial(checks[0], golden, variant, name)
  return cases


def _stored(golden: Golden, variant: str, name: str) -> dict[str, Any]:
  prefix = f'variant/{variant}' if variant else 'output'
  return {k: channels_last(v) for k, v in golden.under(f'{prefix}/{name}').items()}


@functools.cache
def _model(golden: Golden, variant: str) -> NVAE:
  changes = golden.config['_variants'][variant] if variant else {}
  return networks.model_of({**networks.config_of(golden), **changes})


def _on_cpu(golden: Golden, variant: str) -> NVAE:
  """Returns the model in its CPU form; all else is computed in the form for accelerators."""
  return dataclasses.replace(_model(golden, variant), depthwise='shifts')


@functools.cache
def _weights(golden: Golden) -> tuple[Any, Any]:
  return networks.read(golden)


def _check_inputs(golden: Golden) -> None:
  model = _model(golden, '')
  x = channels_last(golden['input/x'])
  compare({'x': model.scale_target(computed.image_of(golden))}, {'x': x}, lambda _: EXACT)
  for key in ('input/alpha_square', 'input/kl_multiplier'):
    if key in golden:
      alphas = objective.alphas(model.groups_per_scale, 'square')
      compare({'alpha': alphas}, {'alpha': golden[key]}, lambda _: SCHEDULE)


@functools.cache
def _compiled(golden: Golden, variant: str, train: bool) -> Callable[..., Any]:
  """eps -> state, results and gradient (only where `train`)."""
  model = _model(golden, variant)

  def call(params, state, eps):
    run = functools.partial(computed.run, golden, model, state=state, eps=eps, train=train)
    if not train:
      return *run(params=params)[1], None
    (_, results), grads = jax.value_and_grad(lambda p: run(params=p), has_aux=True)(params)
    return *results, grads

  jitted = golden_files.quick_jit(call)
  return functools.cache(lambda eps: jitted(*_weights(golden), eps))


def _eps(name: str) -> float:
  return float(re.search(r'eps([\d.]+)', name)[1])


def _run(golden: Golden, variant: str, name: str) -> tuple[Any, dict[str, Any], Any]:
  return _compiled(golden, variant, name.startswith('train'))(_eps(name))


def _reference_gradient(golden: Golden, grads: Any) -> dict[str, np.ndarray]:
  return tables.export_params(networks.entries(golden)['params'], grads)


def _tolerance(key: str) -> Tolerance:
  return TOLERANCES.get(key.split('/')[0], ACTIVATION)


def _check_pass(golden: Golden, variant: str, name: str) -> None:
  state, results, grads = _run(golden, variant, name)
  stored = _stored(golden, variant, name)
  if grads is not None:
    results['grad_norm'] = optax.tree.norm(grads)
  if 'grad_l2' in stored:
    tensors = _reference_gradient(golden, grads)
    norms = [np.linalg.norm(tensors[key]) for key in golden.config['_grad_l2_names']]
    floor = Tolerance(GRADIENT, 1e-5 * float(stored['grad_norm']))
    compare({'grad_l2': norms}, {'grad_l2': stored.pop('grad_l2')}, lambda _: floor)
  if 'buffers_concat' in stored:
    names = golden.config[f'_buffer_names:output/{name}']
    results['buffers_concat'] = networks.statistics(golden, state, names)
  if any(key.startswith('sr_u/') for key in stored):
    vectors = networks.vectors_by_shape(golden, state['singular'])
    results |= {f'sr_u/{shape}': value for shape, value in vectors.items()}
  _compare_results(results, stored)


def _compare_results(results: dict[str, Any], stored: dict[str, Any]) -> None:
  for key in MOSTLY:
    if key in stored:
      value = stored.pop(key)
      networks.mostly(results[key].reshape(value.shape), value)
  # The files have one example only of some results.
  results = {
    key: value[: len(stored[key])] if np.ndim(value) == 4 and key in stored else value
    for key, value in results.items()
  }
  compare(results, stored, _tolerance)


def compare_evaluation(golden: Golden, name: str, model: NVAE, params: Any, state: Any) -> None:
  """Compares a pass in evaluation of another model, an imported one, with a file."""
  run = lambda params, state: computed.run(golden, model, params, state, _eps(name), train=False)[1]
  _, results = golden_files.quick_jit(run)(params, state)
  _compare_results(results, _stored(golden, '', name))


def _check_gradient(golden: Golden) -> None:
  """Checks every element of the gradient of the pass with noise 0."""
  _, _, grads = _run(golden, '', 'train_eps0')
  results, stored = _reference_gradient(golden, grads), golden.under('grad')
  networks.compare_gradients(results, stored, float(optax.tree.norm(grads)), GRADIENT)


IMPORTANCE_EPS = (0.0, 1.0, -0.5)  # value of all noise in each importance-weighted sample


def _check_weights(golden: Golden, variant: str, name: str) -> None:
  """Checks importance-weighted samples."""
  passes = [_compiled(golden, variant, False)(eps)[1] for eps in IMPORTANCE_EPS]
  log_iw = np.stack([one['log_iw'] for one in passes], axis=1)
  results = {
    'log_iw': log_iw,
    'neg_log_p': -(jax.nn.logsumexp(log_iw, axis=1) - np.log(len(passes))).mean(),
    'nelbo': np.mean([one['nelbo_nats'] for one in passes]),
  }
  compare(results, _stored(golden, variant, name), _tolerance)


@functools.cache
def _generator(golden: Golden, variant: str) -> Callable[..., Any]:
  """Returns (state, noise of all groups or a number, temperature, z) -> results."""
  model = _model(golden, variant)
  num = len(golden['input/x'])

  def call(params, state, eps, temperature, z, given):
    # The learned map has an initialiser, which is traced for its shape.
    with noise(normal=lambda rng, shape: eps if shape == eps.shape else jnp.zeros(shape)):
      out, _ = model.generate(params, state, RNG, num, temperature, z, given)
    mean = jnp.clip(model.head.mean(out), 0, 1)
    return {'logits_sub4': out[:, ::4, ::4], 'image_mean': mean[:1]}

  jitted = golden_files.quick_jit(call)
  sizes = [(num, round(n**0.5), round(n**0.5), model.zdim) for n in _areas(model)]
  nothing = tuple(np.zeros(size, np.float32) for size in sizes)

  def generate(state, eps, temperature, z=None):
    # One program for all: latents that are not given are zeros that nothing reads.
    flat = np.full((num, sum(np.prod(s[1:]) for s in sizes)), eps, np.float32)
    given = np.full(len(sizes), z is not None)
    return jitted(_weights(golden)[0], state, flat, temperature, z or nothing, given)

  return generate


def _areas(model: NVAE) -> list[int]:
  return [int(n) // model.zdim for n in model.level_sizes]


def _temperature(name: str) -> float:
  return float(name.rpartition('_t')[2])


def _check_sample(golden: Golden, variant: str, name: str) -> None:
  state = _weights(golden)[1]
  results = _generator(golden, variant)(state, _eps(name), _temperature(name))
  compare(results, _stored(golden, variant, name), _tolerance)


def _check_recalibration(golden: Golden, variant: str, name: str) -> None:
  model, temperature = _on_cpu(golden, variant), _temperature(name)
  iterations, num = int(re.match(r'recal(\d+)', name)[1]), len(golden['input/x'])

  def refresh(params, state):
    with noise(normal=constant(_eps(name))):
      return model.refresh(params, state, RNG, temperature, iterations, num)

  state = golden_files.quick_jit(refresh)(*_weights(golden))
  results = _generator(golden, variant)(state, _eps(name), temperature)
  if names := golden.config.get(f'_buffer_names:output/{name}'):
    results['buffers_concat'] = networks.statistics(golden, state, names)
  compare(results, _stored(golden, variant, name), _tolerance)
  # The statistics of the bottom-up side stay.
  before = _weights(golden)[1]['batch_stats']['bottom_up']
  jax.tree.map(np.testing.assert_array_equal, state['batch_stats']['bottom_up'], before)


def _check_given_noise(golden: Golden, variant: str, name: str) -> None:
  """Checks samples from the file's noise; the noise of one group may be replaced by ones."""
  draws = [channels_last(eps) for eps in golden.numbered('input/normalized_noise')]
  if match := re.search(r'group(\d+)_ones', name):
    draws[int(match[1])] = np.ones_like(draws[int(match[1])])
  flat = np.concatenate([eps.reshape(len(eps), -1) for eps in draws], axis=1)
  results = _generator(golden, variant)(_weights(golden)[1], flat, 1.0)
  compare(results, _stored(golden, variant, name), _tolerance)


@functools.cache
def _encoded(golden: Golden, eps: float) -> list[np.ndarray]:
  model, image = _on_cpu(golden, ''), computed.image_of(golden)

  def encode(params, state):
    with noise(normal=constant(eps)):
      return [group.z for group in model.encode(params, state, {'image': image}, RNG)]

  return golden_files.quick_jit(encode)(*_weights(golden))


def _check_encode(golden: Golden, variant: str, name: str) -> None:
  assert not variant
  results = {f'z/{i}': z for i, z in enumerate(_encoded(golden, _eps(name)))}
  compare(results, _stored(golden, variant, name), _tolerance)


def _check_interpolation(golden: Golden, variant: str, name: str) -> None:
  alpha = float(name.removeprefix('interpolate_alpha'))
  codes = _encoded(golden, 0.0)
  mixed = tuple(np.stack([(1 - alpha) * z[0] + alpha * z[1]] * len(z)) for z in codes)
  results = _generator(golden, variant)(_weights(golden)[1], 0.0, 1.0, mixed)
  compare(results, _stored(golden, variant, name), _tolerance)
