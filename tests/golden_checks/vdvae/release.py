"""Forward passes, gradients and samples of the original release."""

from collections.abc import Callable
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hvae_tpu.importers import tables, trees
from hvae_tpu.models.vdvae import VDVAE
from hvae_tpu.nn import distributions
from tests.golden_checks.vdvae import computed, networks
from tests.support import golden_files
from tests.support.golden_files import Golden, compare
from tests.support.tracing import constant, noise

Cases = dict[str, Callable[[], None]]


def read_params(golden: Golden, model: VDVAE) -> Any:
  tensors = trees.without_module(golden.under('param'))
  return tables.import_params(networks.release_entries(model), tensors, golden.path.name)


def forward_cases(golden: Golden) -> Cases:
  cases: Cases = {}
  if golden.has('input/x', 'input/x_target', 'input/posterior_mean_latent/*'):
    cases['inputs'] = functools.partial(_check_inputs, golden)
  for name in golden.names_under('output'):
    cases[name] = functools.partial(_check_pass, golden, name)
  for name in dict.fromkeys(key.split('/')[0] for key in golden.keys if key.startswith('grad')):
    cases[name] = functools.partial(_check_gradient, golden, name)
  return cases


@functools.cache
def _run(golden: Golden, eps: float) -> tuple[dict[str, Any], Any]:
  """Returns all results of one pass, by the names of the file, and the gradient."""
  return _compiled(golden)(eps)


@functools.cache
def _compiled(golden: Golden) -> Callable[[float], tuple[dict[str, Any], Any]]:
  model = networks.release_model(golden.config)
  params, image = read_params(golden, model), golden['input/image_uint8']

  def run(params, image, eps):
    loss = lambda params: computed.release_run(model, params, image, eps)
    (_, results), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return {**results, 'grad_norm': optax.tree.norm(grads)}, grads

  jitted = golden_files.quick_jit(run)
  return lambda eps: jitted(params, image, eps)


def _eps(name: str) -> float:
  """Returns the number in place of every latent draw: 'eps1' -> 1.0."""
  return float(name.removeprefix('eps'))


def _check_inputs(golden: Golden) -> None:
  model, image = networks.release_model(golden.config), golden['input/image_uint8']
  results = {'x': model.scale_input(image), 'x_target': model.scale_target(image)}
  tolerances = dict.fromkeys(results, networks.PREPROCESSING)
  given = golden.under('input')
  for name in given:
    if name.startswith('posterior_mean_latent/'):
      z = _run(golden, 0.0)[0][name.replace('posterior_mean_latent', 'z')]
      results[name] = z[: len(given[name])]
      tolerances[name] = computed.FEATURES
  expected = {
    name: computed.channels_last(name, given[name]) if '/' in name else given[name]
    for name in results
    if name in given
  }
  compare(results, expected, tolerances.__getitem__)


def _check_pass(golden: Golden, name: str) -> None:
  expected = golden.under(f'output/{name}')
  compare(
    _run(golden, _eps(name))[0],
    {key: computed.channels_last(key, value) for key, value in expected.items()},
    computed.release_tolerance,
  )


def _check_gradient(golden: Golden, name: str) -> None:
  """Compares gradients; `grad` belongs to the pass with eps 0."""
  eps = 0.0 if name == 'grad' else _eps(name.removeprefix('grad_'))
  entries = networks.release_entries(networks.release_model(golden.config))
  results = tables.export_params(entries, _run(golden, eps)[1])
  norm = golden.under(f'output/eps{eps:g}').get('grad_norm')
  stored = networks.with_zeros(golden.under(name), results, norm)
  compare(results, stored, lambda _: networks.GRADIENT)


def sample_cases(golden: Golden) -> Cases:
  return {
    name: functools.partial(_check_sample, golden, name) for name in golden.names_under('output')
  }


VARIANT = re.compile(
  r'(uncond|manual)(?:_(all|random_all|even|odd|first\d+))?(?:_eps(\d+))?(?:_t(None|list|[\d.]+))?'
)


def parse_variant(name: str) -> tuple[str, str, float, str]:
  """Returns (uncond or manual, given levels, eps, temperature) from a name in a file."""
  matched = VARIANT.fullmatch(name)
  assert matched, f'{name!r} is no known way to sample'
  mode, which, eps, temperature = matched.groups()
  return mode, which or '', float(eps or 0), temperature or 'None'


def given_levels(which: str, count: int) -> np.ndarray:
  """Returns bool [count] for 'all', 'random_all', 'even', 'odd' or 'first2'."""
  levels = np.arange(count)
  if which.startswith('first'):
    return levels < int(which.removeprefix('first'))
  if which in ('even', 'odd'):
    return levels % 2 == ('even', 'odd').index(which)
  return np.full(count, which in ('all', 'random_all'))


def _check_sample(golden: Golden, name: str) -> None:
  expected = golden.under(f'output/{name}')
  mode, which, eps, t = parse_variant(name)
  count = len(networks.release_model(golden.config).level_names)
  temperatures = np.ones(count, np.float32)
  if t == 'list':
    temperatures = golden['input/t_list']
  elif t != 'None':
    temperatures = np.full(count, t, np.float32)
  sample, decode = _samplers(golden, len(next(iter(expected.values()))))
  if mode == 'uncond':
    results = sample(eps, temperatures)
  else:
    source = 'random_latent' if which == 'random_all' else 'posterior_mean_latent'
    z = [value.transpose(0, 2, 3, 1) for value in golden.numbered(f'input/{source}')]
    results = decode(eps, temperatures, z, given_levels(which, count))
  floats = {key: value for key, value in expected.items() if key != 'image'}
  if floats:
    compare(results, floats, lambda _: computed.FEATURES)
  if 'image' in expected:
    golden_files.compare_images(results['image'], expected['image'])


@functools.cache
def _samplers(golden: Golden, num: int) -> tuple[Callable, Callable]:
  """Compiles `sample(eps, temperatures)` and `decode(eps, temperatures, z, given)`."""
  model = networks.release_model(golden.config)
  params = read_params(golden.beside(golden.config['params_in']), model)
  rng = jax.random.key(0)

  def pictures(params, eps, generate):
    with computed.watched() as seen, noise(normal=constant(eps), uniform=constant(0.5)):
      image = generate(params)
      logits = computed.features(model, seen[0])['logits']
      mixture = distributions.mixture_by_colour(logits, model.num_mixtures)
      x = distributions.dmol_sample(rng, mixture)
    return {'image': image, 'logits': logits, 'x_float': x}

  def sample(params, eps, temperatures):
    return pictures(params, eps, lambda p: model.sample(p, {}, rng, num, temperatures))

  def decode(params, eps, temperatures, z, given):
    latents = tuple(distributions.Group(value, jnp.zeros_like(value), value) for value in z)
    return pictures(params, eps, lambda p: model.decode(p, {}, latents, rng, temperatures, given))

  return tuple(
    functools.partial(golden_files.quick_jit(function), params) for function in (sample, decode)
  )
