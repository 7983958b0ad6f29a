"""The official TensorFlow code: its options, gradients and optimizer; what conversion makes of it.

Weights, gradients and steps of the file are those of its own variables, so ours are computed
through the conversion.
"""

from collections.abc import Mapping
import dataclasses
import functools
import re
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from hvae_tpu.importers import cwvae
from hvae_tpu.importers.tables import Entry, export_params
from hvae_tpu.models.cwvae import CWVAE
from tests.golden_checks.cwvae import forward, networks, trajectory
from tests.golden_checks.cwvae.networks import RNG, Cases
from tests.support import golden_files, kinks
from tests.support.golden_files import EXACT, Golden, Tolerance, compare, differences, fail_with
from tests.support.tracing import constant, noise

OPTIONS = {  # theirs -> ours
  'beta': 'beta',
  'free_nats': 'free_nats',
  'kl_grad_post_perc': 'kl_grad_post_perc',
  'cell_reset_state': 'cell_reset_state',
  'cell_mean_only': 'cell_mean_only',
}
NOT_VARIANTS = ('adam_keras',)


def model_of(config: Mapping[str, Any], variant: str, **fields: Any) -> CWVAE:
  """Returns our model of a variant of the file, '' for none, with the official gradients."""
  change = config['variants'][variant] if variant else {}
  options = {OPTIONS[k]: v for k, v in change.items() if k != 'eps'}
  if 'beta' in options:
    options['beta'] = tuple(np.atleast_1d(options['beta']).tolist())
  model = networks.model_of({**config, **config['base']})
  fields = dict(kl_balance='reference') | options | fields
  return dataclasses.replace(model, **fields)


def assemble(entries: list[Entry], tensors: Mapping[str, Any]) -> Any:
  """Builds the parameter tree as `tables.import_params` does, from traced arrays."""
  parts: dict[tuple[str, ...], dict] = {}
  for e in entries:
    parts.setdefault(e.path, {})[e.index] = e.layout.to_ours(tensors[e.key])
  join = lambda slices: (
    slices[None] if None in slices else jnp.stack([slices[i] for i in sorted(slices)])
  )
  return traverse_util.unflatten_dict({path: join(slices) for path, slices in parts.items()})


class Official:
  """A model whose parameters are the variables of the official code; only `loss` is there."""

  def __init__(self, model: CWVAE):
    self.model = model

  def params(self, variables: Mapping[str, Any]) -> Any:
    return assemble(networks.entries(self.model), cwvae.from_keras(variables))

  def loss(self, variables, *args, **kwargs):
    return self.model.loss(self.params(variables), *args, **kwargs)


def official_cases(golden: Golden) -> Cases:
  variants = [name for name in golden.names_under('output') if name not in NOT_VARIANTS]
  cases: Cases = {name: functools.partial(_check_variant, golden, name) for name in variants}
  for name in golden.names_under('grad'):
    cases[f'grad_{name}'] = functools.partial(_check_gradient, golden, name)
  if golden.has('output/adam_keras/*'):
    cases['adam_keras'] = functools.partial(_check_adam, golden)
  return cases


@functools.cache
def _compiled(golden: Golden, variant: str):
  """Returns (eps, moves of biases) -> (results, gradients by variable) of a variant."""
  official = Official(model_of(golden.config, variant))
  variables, video = golden.under('param'), golden['input/obs_uint8']
  wants_gradient = golden.has(f'grad/{variant}/*', f'output/{variant}/grad_global_norm')
  wants_prediction = any(key.startswith('openloop') for key in golden.under(f'output/{variant}'))

  def run(variables, video, eps):
    batch = {'video': video}
    with noise(normal=constant(eps)):
      loss = functools.partial(
        official.loss, state={}, batch=batch, rng=RNG, step=jnp.int32(0), train=True
      )
      if wants_gradient:
        (total, (_, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(variables)
      else:
        (total, (_, metrics)), grads = loss(variables), {}
      results = forward.port_metrics(official.model, metrics)
      results = {key.removeprefix('metric/'): value for key, value in results.items()}
      params = official.params(variables)
      results |= {'loss': total, **forward.whole_pass(official.model, params, batch, eps)}
      if wants_prediction:
        results |= _open_loop(official.model, params, batch, golden.config['open_loop_ctx'])
    return results, grads

  jitted = golden_files.quick_jit(run)
  return lambda eps, moves=(): jitted(kinks.move(variables, moves), video, eps)


def _open_loop(model: CWVAE, params: Any, batch: Any, context: int) -> dict[str, Any]:
  observed = {'video': batch['video'][:, :context]}
  recon, onestep = model.reconstruct(params, {}, observed, RNG)
  num = batch['video'].shape[1] - context
  multistep, _ = model.predict(params, {}, batch, RNG, context, num=num)
  named = {'posterior_recon': recon, 'prior_onestep': onestep, 'prior_multistep': multistep}
  results = {}
  for name, frames in named.items():
    results[f'openloop_{name}_last'] = frames[:, -1:]
    results[f'openloop_{name}_frame_mean'] = frames.mean((2, 3, 4))
  return results


@functools.cache
def _run(golden: Golden, variant: str) -> tuple[dict[str, Any], Any]:
  return _compiled(golden, variant)(golden.config['variants'][variant]['eps'])


def _check_variant(golden: Golden, name: str) -> None:
  results, grads = _run(golden, name)
  expected = golden.under(f'output/{name}')
  for key in [key for key in expected if key.endswith('decoded_first')]:
    results = {**results, key: results['decoded'][:, : expected[key].shape[1]]}
  results = {**results, 'grad_global_norm': _norm(grads)}
  for level in range(golden.config['levels']):
    results[f'posterior_det_out_level{level}'] = results[f'prior_det_out_level{level}']
    if golden.config['variants'][name].get('cell_mean_only'):
      results[f'prior_sample_level{level}'] = results[f'prior_mean_level{level}']
  compare(results, expected, networks.tolerance)


def _norm(grads: Any) -> np.floating:
  return np.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for leaf in jax.tree.leaves(grads)))


def _check_gradient(golden: Golden, name: str) -> None:
  stored, biases = golden.under(f'grad/{name}'), kinks.bias_names(golden.under('param'))
  eps = golden.config['variants'][name]['eps']

  def gradients_at(moves):
    return (_compiled(golden, name)(eps, moves) if moves else _run(golden, name))[1]

  differ = lambda grads: differences(grads, stored, lambda _: networks.GRADIENT)
  fail_with(kinks.real_differences(differ, gradients_at, biases), len(stored))


def _check_adam(golden: Golden) -> None:
  """Checks steps with Keras's Adam: a rate of 1e-3, all noise 1, gradients as they are."""
  official = Official(model_of(golden.config, ''))
  expected = golden.under('output/adam_keras')
  optimizer = dict(name='adam_keras', learning_rate=1e-3, clip_norm=10_000.0)
  stream = trajectory.steps(
    official, golden.under('param'), golden['input/obs_uint8'], 1.0, optimizer
  )
  steps = [next(stream) for _ in expected['loss']]
  losses = np.array([metrics['loss'] for metrics, _ in steps])
  compare({'loss': losses}, {'loss': expected.pop('loss')}, trajectory.TOLERANCES.__getitem__)
  if expected:
    final = {f'final_param/{key}': value for key, value in steps[-2][1].params.items()}
    compare(final, expected, lambda _: trajectory.final(1e-3))


def converted_cases(golden: Golden) -> Cases:
  cases: Cases = {}
  if golden.has('param_converted/*'):
    cases['conversion'] = functools.partial(_check_conversion, golden)
  for rule in ('intended', 'reference'):
    if golden.has(f'output/{rule}/loss', f'grad_{rule}/*'):
      cases[rule] = functools.partial(_check_balance, golden, rule)
  if golden.has('output/scaled_kl_per_level'):
    cases['scaled_kl'] = functools.partial(_check_scaled_kl, golden)
  return cases


def _source(golden: Golden) -> Golden:
  """Returns the file whose weights were converted."""
  return golden.beside(f'{golden.config["source"].split()[2]}.npz')


SUM_AND_CORNER = 'output/convtranspose_0_kernel_converted_sum_abs_and_corner'


def _check_conversion(golden: Golden) -> None:
  converted = cwvae.from_keras(_source(golden).under('param'))
  compare(converted, golden.under('param_converted'), lambda _: EXACT)
  if SUM_AND_CORNER in golden:
    kernel = converted['decoder/ConvTranspose_0/kernel']
    numbers = np.array([np.abs(kernel).sum(), kernel[0, 0, 0, 0], kernel[0, 1, 2, 3]])
    stored = golden[SUM_AND_CORNER]
    compare({'kernel': numbers}, {'kernel': stored}, lambda _: Tolerance(1e-6, 0))


@functools.cache
def _balanced(golden: Golden, rule: str) -> tuple[Any, Any, dict[str, np.ndarray]]:
  """Returns loss, metrics and gradients of the converted weights with one rule of KL balancing."""
  source, share = _source(golden), golden.config['kl_grad_post_perc']
  model = model_of(source.config, '', kl_grad_post_perc=share, kl_balance=rule)
  entries = networks.entries(model)
  eps = float(re.search(r'noise ([\d.]+)', golden.config['source'])[1])

  def run(params, video):
    batch = {'video': video}
    with noise(normal=constant(eps)):
      loss = functools.partial(model.loss, state={}, batch=batch, rng=RNG, step=0, train=True)
      return jax.value_and_grad(loss, has_aux=True)(params)

  params = assemble(entries, cwvae.from_keras(source.under('param')))
  (loss, (_, metrics)), grads = golden_files.quick_jit(run)(params, source['input/obs_uint8'])
  return loss, metrics, export_params(entries, grads)


def _check_balance(golden: Golden, rule: str) -> None:
  loss, _, gradients = _balanced(golden, rule)
  if f'output/{rule}/loss' in golden:
    compare({'loss': loss}, {'loss': golden[f'output/{rule}/loss']}, networks.tolerance)
  if golden.has(f'grad_{rule}/*'):
    compare(gradients, golden.under(f'grad_{rule}'), lambda _: networks.GRADIENT)


def _check_scaled_kl(golden: Golden) -> None:
  _, metrics, _ = _balanced(golden, 'reference')
  scaled = {'kl': golden.config['kl_grad_post_perc'] * metrics['kl_per_level'].mean(0)}
  compare(scaled, {'kl': golden['output/scaled_kl_per_level']}, lambda _: networks.KL)
