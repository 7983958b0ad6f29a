"""The JAX port: forward passes, gradients, its likelihood and its primitives."""

from collections.abc import Mapping
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hvae_tpu.importers import tables, trees, vdvae
from hvae_tpu.importers.tables import Entry
from hvae_tpu.models.vdvae import VDVAE
from hvae_tpu.nn import distributions, layers
from tests.golden_checks.vdvae import computed, networks, pieces
from tests.golden_checks.vdvae.computed import LOG_PROB, PORT
from tests.golden_checks.vdvae.release import Cases, given_levels, parse_variant
from tests.support import golden_files
from tests.support.golden_files import Golden, Tolerance, compare, in_turn
from tests.support.tracing import constant, noise

SAMPLES = Tolerance(1e-5, 2e-5)  # before clipping they reach 1e7


class Port(VDVAE):
  """Checks 5-bit data: the port floors the targets but keeps the bins of 8 bits."""

  def scale_target(self, image):
    return super().scale_target(image // 8 * 8)


def port_model(config: Mapping[str, Any]) -> VDVAE:
  fields = networks.model_fields(config)
  # There, a plain item of `dec_blocks` mixes in resolution 1.
  items = fields['dec_blocks'].split(',')
  fields['dec_blocks'] = ','.join(f'{r}m1' if r.strip().isdigit() else r for r in items)
  kind = Port if fields.pop('num_bits') == 5 else VDVAE
  return kind(**fields, likelihood='dmol_exact', gelu_approximate=True, kernel_init='lecun')


@functools.cache
def port_entries(model: VDVAE) -> list[Entry]:
  return vdvae.JAX.entries(model)


def read_params(golden: Golden, model: VDVAE) -> Any:
  tensors = trees.flatten(golden.under('param'), '/')
  return tables.import_params(port_entries(model), tensors, golden.path.name)


def forward_cases(golden: Golden) -> Cases:
  cases: Cases = {}
  if golden.has('input/x', 'input/x_target'):
    cases['inputs'] = functools.partial(_check_inputs, golden)
  for name in golden.names_under('output'):
    check = _check_pass if name.startswith('eps') else _check_generation
    cases[name] = functools.partial(check, golden, name)
  for name in dict.fromkeys(key.split('/')[0] for key in golden.keys if key.startswith('grad')):
    cases[name] = functools.partial(_check_gradient, golden, name)
  return cases


def _check_inputs(golden: Golden) -> None:
  model, image = port_model(golden.config), golden['input/image_uint8']
  results = {'x': model.scale_input(image), 'x_target': model.scale_target(image)}
  stored = golden_files.select(golden, results, 'input')
  compare(results, stored, lambda _: networks.PREPROCESSING)


@functools.cache
def _run(golden: Golden, eps: float) -> tuple[dict[str, Any], Any]:
  """Returns all results of one pass, by the names of the file, and the gradient."""
  return _compiled(golden)(eps)


@functools.cache
def _compiled(golden: Golden):
  model = port_model(golden.config)
  params, image = read_params(golden, model), golden['input/image_uint8']

  def run(params, image, eps):
    loss = lambda params: computed.port_run(model, params, image, eps)
    (_, results), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return {**results, 'grad_norm': optax.tree.norm(grads)}, grads

  jitted = golden_files.quick_jit(run)
  return lambda eps: jitted(params, image, eps)


def _check_pass(golden: Golden, name: str) -> None:
  results, _ = _run(golden, float(name.removeprefix('eps')))
  expected = golden.under(f'output/{name}')
  compare(results, expected, computed.port_tolerance)


def _check_gradient(golden: Golden, name: str) -> None:
  eps = float(name.removeprefix('grad').removeprefix('_eps') or 0)
  results = tables.export_params(port_entries(port_model(golden.config)), _run(golden, eps)[1])
  norm = golden.under(f'output/eps{eps:g}').get('grad_norm')
  compare(results, networks.with_zeros(golden.under(name), results, norm), lambda _: PORT)


def _check_generation(golden: Golden, name: str) -> None:
  """Checks decoder runs; given latents come from the pass with eps 1."""
  expected = golden.under(f'output/{name}')
  mode, which, eps, t = parse_variant(name)
  num = len(next(iter(expected.values())))
  if mode == 'manual':
    z = golden.numbered('output/eps1/z')
  else:  # none is given
    z = [np.zeros((num, *shape), np.float32) for shape in _latent_shapes(golden)]
  temperature = 1.0 if t == 'None' else float(t)
  # The port takes 0 for no temperature, which is 1.
  temperatures = np.full(len(z), temperature or 1.0, np.float32)
  given = given_levels(which, len(z)) & (mode == 'manual')
  latents = [np.resize(value, (num, *value.shape[1:])) for value in z]
  compare(_generator(golden)(eps, temperatures, latents, given), expected, lambda _: PORT)


def _latent_shapes(golden: Golden) -> list[tuple[int, ...]]:
  model = port_model(golden.config)
  sides = [int(re.match(r'res(\d+)', name)[1]) for name in model.level_names]
  return [(side, side, model.zdim) for side in sides]


@functools.cache
def _generator(golden: Golden):
  model = port_model(golden.config)
  rng = jax.random.key(0)

  def generate(params, eps, temperatures, z, given):
    latents = tuple(distributions.Group(value, jnp.zeros_like(value), value) for value in z)
    with computed.watched() as seen, noise(normal=constant(eps)):
      model.decode(params, {}, latents, rng, temperatures, given)
    return computed.features(model, seen[0])

  return functools.partial(golden_files.quick_jit(generate), read_params(golden, model))


def _head(num_mixtures: int) -> VDVAE:
  return VDVAE(**networks.ONE_BLOCK, likelihood='dmol_exact', num_mixtures=num_mixtures)


def dmol_cases(golden: Golden) -> Cases:
  cases: Cases = {}
  if golden.has('output/loglik_*', 'grad/logits'):
    cases['log_prob'] = functools.partial(_check_log_prob, golden)
  if golden.has('output/sample_*'):
    cases['samples'] = functools.partial(_check_samples, golden)
  return cases


def _check_log_prob(golden: Golden) -> None:
  model = _head(golden.config['num_mixtures'])
  target = golden['input/x_target']
  if 'input/image_uint8' in golden:
    scaled = model.scale_target(golden['input/image_uint8'])
    compare({'x_target': scaled}, {'x_target': target}, lambda _: networks.PREPROCESSING)

  def total(logits):
    per_pixel = model.log_likelihood(logits, target)
    return per_pixel.sum(), per_pixel

  run = golden_files.quick_jit(jax.value_and_grad(total, has_aux=True))
  (_, per_pixel), grad = run(golden['input/logits'])
  results = {
    'output/loglik_per_pixel_nats': per_pixel,
    'output/loglik_per_example_nats': per_pixel.sum((1, 2)),
    'grad/logits': grad,
  }
  tolerances = {'output/loglik_per_example_nats': LOG_PROB}
  stored = {key: golden[key] for key in results if key in golden}
  compare(results, stored, lambda key: tolerances.get(key, PORT))


def _check_samples(golden: Golden) -> None:
  """Checks the most probable component, with the file's logistic noise and with none."""
  k = golden.config['num_mixtures']
  model = _head(k)
  given = golden['input/logistic_noise']

  def draw(logits, logistic):
    rng = jax.random.key(0)
    with noise(gumbel=constant(0.0), logistic=in_turn(logistic)):
      x = distributions.dmol_exact_sample(rng, distributions.mixture_by_component(logits, k))
      return x, model.pictures(logits, rng)

  run = golden_files.quick_jit(draw)
  for suffix, logistic in (('', given), ('_noise0', np.zeros_like(given))):
    x, image = run(golden['input/logits'], logistic)
    pieces.compare_samples(golden, suffix, x, image, SAMPLES)


def primitive_cases(golden: Golden) -> Cases:
  return {'all': functools.partial(_check_primitives, golden)}


def _check_primitives(golden: Golden) -> None:
  stored, results = golden.under('output'), {}
  if 'input/x' in golden:
    slope = golden_files.quick_jit(jax.vmap(jax.grad(distributions.log1mexp)))
    results['log1mexp'] = distributions.log1mexp(golden['input/x'])
    results['log1mexp_grad'] = slope(golden['input/x'])
  if 'gelu' in stored:
    results['gelu'] = layers.gelu(golden['input/gelu_x'], True)
  if 'kl' in stored:
    posterior, prior = (
      distributions.Normal(golden[f'input/mu{i}'], golden[f'input/logsigma{i}']) for i in (1, 2)
    )
    results['kl'] = posterior.kl(prior)
  compare(results, stored, _primitive)


def _primitive(key: str) -> Tolerance:
  return computed.FEATURES if key == 'gelu' else computed.LOSS
