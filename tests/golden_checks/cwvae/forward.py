"""Passes of the JAX port along a video, its open-loop predictions and its gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hvae_tpu.importers import tables
from hvae_tpu.models.cwvae import CWVAE
from hvae_tpu.models.protocol import Metrics
from hvae_tpu.nn import distributions
from tests.golden_checks.cwvae import networks
from tests.golden_checks.cwvae.networks import RNG, Cases
from tests.support import golden_files, kinks
from tests.support.golden_files import Golden, compare, differences, fail_with
from tests.support.tracing import constant, noise

SEEN_FIRST = 'decoded_first'  # the only frames that are stored whole


def forward_cases(golden: Golden) -> Cases:
  cases: Cases = {
    name: functools.partial(_check_pass, golden, name) for name in golden.names_under('output')
  }
  for name in dict.fromkeys(key.split('/')[0] for key in golden.keys if key.startswith('grad')):
    cases[name] = functools.partial(_check_gradient, golden, name)
  return cases


@functools.cache
def _run(golden: Golden, eps: float) -> tuple[dict[str, Any], Any]:
  """Returns all results of a pass, by the names of the file, and the gradient."""
  return _compiled(golden)(eps)


@functools.cache
def _compiled(golden: Golden):
  model = networks.model_of(golden.config)
  params, video = networks.read_params(golden, model), golden['input/obs_uint8']
  wants_gradient = golden.has('grad*', '*/grad_global_norm')
  wants_prediction = golden.has('output/*/openloop_*', 'output/*/context_*')

  def run(params, video, eps):
    batch = {'video': video}
    with noise(normal=constant(eps)):
      loss = functools.partial(
        model.loss, state={}, batch=batch, rng=RNG, step=jnp.int32(0), train=True
      )
      if wants_gradient:
        (total, (_, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(params)
      else:
        (total, (_, metrics)), grads = loss(params), {}
      results = {'metric/loss': total, 'grad_global_norm': optax.tree.norm(grads)}
      results |= port_metrics(model, metrics)
      results |= whole_pass(model, params, batch, eps)
      if wants_prediction:
        results |= open_loop(model, params, batch, golden.config['open_loop_ctx'], eps)
    return results, grads

  jitted = golden_files.quick_jit(run)
  return lambda eps, moves=(): jitted(kinks.move(params, moves), video, eps)


def port_metrics(model: CWVAE, metrics: Metrics) -> dict[str, Any]:
  """Returns our metrics under the port's names."""
  results = {
    'metric/kl_term': metrics['weighted_kl_per_frame'],
    'metric/nll_term': metrics['nll_per_frame'].mean(),
  }
  ours = {'kl_prior_posterior': 'kl', 'entropy_prior': 'entropy_prior'}
  for theirs, name in (ours | {'entropy_posterior': 'entropy_posterior'}).items():
    for level, value in enumerate(metrics[f'{name}_per_level_per_frame'].mean(0)):
      results[f'metric/avg_{theirs}__level_{level}'] = value
  return results


def whole_pass(model: CWVAE, params: Any, batch: Any, eps: Any) -> dict[str, Any]:
  """Computes the states of all levels along the video, and the decoded frames."""
  x = model.scale(batch['video'])
  features = model._apply(params, 'features', x)
  levels, end = model._observe(params, batch, RNG, (True,) * model.levels)
  frames = model._apply(params, 'decode', levels[0].output)
  log_prob = distributions.normal_log_prob(x, frames, model.dec_stddev)
  results = {'decoded': frames, 'nll_per_frame': -log_prob.sum((2, 3, 4))}
  results |= {f'decoded_{k}': v for k, v in networks.frame_statistics(frames).items()}
  for level, (ticks, state) in enumerate(zip(levels, end.states, strict=True)):
    results |= networks.ticks('prior', level, ticks) | networks.ticks('posterior', level, ticks)
    results |= {
      f'enc_level{level}': features[level],
      f'prior_sample_level{level}': ticks.prior.sample(eps),
      f'posterior_sample_level{level}': ticks.sample,
      f'kl_level{level}': ticks.posterior.kl(ticks.prior).sum(-1),
      f'last_sample_level{level}': state.sample,
      f'last_det_state_level{level}': state.det,
    }
  return results


def open_loop(model: CWVAE, params: Any, batch: Any, context: int, eps: Any) -> dict[str, Any]:
  """Returns the passes along the context and behind it, and the predicted frames."""
  num = batch['video'].shape[1] - context
  frames, _ = model.predict(params, {}, batch, RNG, context, num=num)
  results = {'openloop_decoded_first': frames[:, :1], 'openloop_decoded_last': frames[:, -1:]}
  results |= {f'openloop_{k}': v for k, v in networks.frame_statistics(frames).items()}
  observed = {'video': batch['video'][:, :context]}
  levels, end = model._observe(params, observed, RNG, model._observed_levels)
  for level, ticks in enumerate(levels):
    for side in ('prior', 'posterior'):
      results[f'context_{side}_mean_level{level}'] = getattr(ticks, side).mean
    results[f'context_posterior_sample_level{level}'] = ticks.sample
    results[f'context_prior_sample_level{level}'] = ticks.prior.sample(eps)
  none = [None] * model.levels
  for level, ticks in enumerate(model._apply(params, 'unroll', none, num, end, RNG)[0]):
    results |= {f'openloop_{k}': v for k, v in networks.ticks('prior', level, ticks).items()}
    results[f'openloop_prior_sample_level{level}'] = ticks.sample
  return results


def _check_pass(golden: Golden, name: str) -> None:
  results, _ = _run(golden, float(name.removeprefix('eps')))
  expected = golden.under(f'output/{name}')
  if SEEN_FIRST in expected:
    results = {**results, SEEN_FIRST: results['decoded'][:, : expected[SEEN_FIRST].shape[1]]}
  compare(results, expected, networks.tolerance)


def _check_gradient(golden: Golden, name: str) -> None:
  eps = float(name.removeprefix('grad').removeprefix('_eps') or 0)
  model = networks.model_of(golden.config)
  stored, biases = golden.under(name), kinks.bias_names(networks.read_params(golden, model))

  def gradients_at(moves):
    grads = (_compiled(golden)(eps, moves) if moves else _run(golden, eps))[1]
    return tables.export_params(networks.entries(model), grads)

  differ = lambda grads: differences(grads, stored, lambda _: networks.GRADIENT)
  fail_with(kinks.real_differences(differ, gradients_at, biases), len(stored))
