"""Likelihoods, divergences and draws from given channels; weights of the KL; one regulariser."""

from collections.abc import Callable
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hvae_tpu.models.nvae import NVAE, heads, objective, regularisers
from hvae_tpu.models.nvae.heads import Head
from hvae_tpu.nn import distributions
from tests.golden_checks.nvae import networks, pieces
from tests.golden_checks.nvae.computed import SUM, channels_last
from tests.golden_checks.nvae.networks import COMPONENT, Cases
from tests.support import golden_files
from tests.support.golden_files import Golden, Tolerance, compare, in_turn
from tests.support.tracing import constant, noise

RNG = jax.random.key(0)
GRADIENT = 1e-4  # relative error of the norm


def head(
  name: str, mixtures: int, bits: int = 8, temperature: float = 1.0, channels: int = 3
) -> Head:
  return NVAE(
    likelihood=name,
    num_mixtures=mixtures,
    num_bits=bits,
    output_temperature=temperature,
    image_channels=channels,
  ).head


def _channels(golden: Golden, key: str) -> np.ndarray:
  return channels_last(golden[key])


def _compare_gradient(results: Any, expected: Any) -> None:
  results, expected = np.asarray(results), channels_last(expected)
  assert np.linalg.norm(results - expected) < GRADIENT * np.linalg.norm(expected)


def _graded(function: Callable[[Any], Any], out: Any) -> tuple[np.ndarray, np.ndarray]:
  """Returns values, and the gradient of their sum."""
  run = jax.value_and_grad(lambda v: (lambda y: (y.sum(), y))(function(v)), has_aux=True)
  (_, values), grad = golden_files.quick_jit(run)(out)
  return values, grad


# Patterns of keys; each one shows that a file holds heads (release, other reference).
OFFICIAL_KEYS = (
  ('output/dmol*/*',),
  ('output/disc_logistic/*',),
  ('output/normal/*',),
  ('output/bernoulli/*',),
  ('output/normal_kl/*',),
)
SEED_KEYS = (
  ('output/logistic_mixture/*',),
  ('output/gaussian_mixture/*',),
  ('output/gaussian/*',),
  ('output/normal_t*/*',),
  ('output/kl_scheduler*/*',),
  ('output/kl/*',),
  ('output/reg/*',),
  ('output/ar_mask_seed/*',),
)


def official_cases(golden: Golden) -> Cases:
  checks = {
    r'dmol_\d+bit': _check_dmol,
    r'dmol': _check_dmol_draws,
    r'disc_logistic': _check_one_logistic,
    r'normal': _check_normal,
    r'bernoulli': _check_bernoulli,
    r'normal_kl': _check_normal_kl,
  }
  cases: Cases = {}
  for name in golden.names_under('output'):
    (check,) = [check for kind, check in checks.items() if re.fullmatch(kind, name)]
    cases[name] = functools.partial(check, golden, name)
  return cases


def _check_dmol(golden: Golden, name: str) -> None:
  bits = int(re.search(r'\d+', name)[0])
  ours, stored = head('dmol', golden.config['num_mix'], bits), golden.under(f'output/{name}')
  x = _channels(golden, f'input/x_{bits}bit')
  out = _channels(golden, 'input/dmol_logits')
  values, grad = _graded(lambda out: ours.log_prob(out, x), out)
  if 'log_prob' in stored:
    networks.mostly(values, stored.pop('log_prob'))
  if 'grad_logits' in stored:
    _compare_gradient(-grad, stored.pop('grad_logits'))
  if stored:
    compare({'recon_nats': -values.sum((1, 2))}, stored, lambda _: SUM)


def _check_dmol_draws(golden: Golden, name: str) -> None:
  out, mixtures = _channels(golden, 'input/dmol_logits'), golden.config['num_mix']
  stored = {key: channels_last(v) for key, v in golden.under(f'output/{name}').items()}
  results = {'mean': head('dmol', mixtures).mean(out)}
  for key in stored:
    if key.startswith('sample_t'):
      draws = [_channels(golden, f'input/{name}') for name in ('u_gumbel', 'u_logistic')]
      temperature = float(key.removeprefix('sample_t'))
      with noise(uniform=in_turn(*draws)):
        results[key] = head('dmol', mixtures, 8, temperature).draw(out, RNG)
  compare(results, stored, lambda _: COMPONENT)


def _check_one_logistic(golden: Golden, name: str) -> None:
  """Checks one component without chained colours; the reference clamps it differently."""
  mean, scale = np.split(np.moveaxis(_channels(golden, 'input/pair_logits'), -1, 0), 2)
  zeros = np.zeros_like(mean)[:, None]
  mixture = distributions.LogisticMixture(zeros[0], mean[:, None], scale[:, None], zeros)
  x = 2 * _channels(golden, 'input/x_8bit') - 1
  stored = golden.under(f'output/{name}')
  # Per colour: the other colours of a pixel are given no weight by an own mixture each.
  for colour in range(x.shape[-1] if 'log_prob' in stored else 0):
    only = jax.tree.map(lambda a, c=colour: a if a.shape[0] == 1 else a[c : c + 1], mixture)
    triple = only._replace(
      means=jnp.repeat(only.means, 3, 0),
      scales=jnp.repeat(only.scales, 3, 0),
      coeffs=jnp.zeros_like(jnp.repeat(only.coeffs, 3, 0)[:3]),
    )
    same = np.repeat(x[..., colour : colour + 1], 3, -1)
    values = distributions.dmol_log_prob(
      triple, same, half_bin=1 / 255, upper_edge=0.99, min_log_scale=-8.0
    )
    networks.mostly(values / 3, stored['log_prob'][:, colour])
  if 'sample' not in stored:
    return
  u = _channels(golden, 'input/u_logistic')
  with noise(uniform=in_turn(np.full((*u.shape[:3], 1), 0.5, np.float32), u)):
    sample = distributions.dmol_sample(RNG, mixture, min_log_scale=-8.0)
  results = {'sample': np.asarray(sample) / 2 + 0.5}
  compare(results, {'sample': channels_last(stored['sample'])}, lambda _: COMPONENT)


def _check_normal(golden: Golden, name: str) -> None:
  out, x = _channels(golden, 'input/pair_logits'), _channels(golden, 'input/x_8bit')
  ours, stored = head('normal', 1, channels=x.shape[-1]), golden.under(f'output/{name}')
  values = ours.log_prob_of_colours(out, x)
  if 'log_prob' in stored:
    networks.mostly(values, channels_last(stored.pop('log_prob')))
  results = {'recon_nats': -values.sum((1, 2, 3))}
  for key in stored:
    if key.startswith('sample_eps'):
      with noise(normal=constant(float(key.removeprefix('sample_eps')))):
        results[key] = ours.draw(out, RNG)
  stored = {key: channels_last(value) for key, value in stored.items()}
  if stored:
    compare(results, stored, lambda key: SUM if key == 'recon_nats' else COMPONENT)


def _check_bernoulli(golden: Golden, name: str) -> None:
  logits, x = _channels(golden, 'input/bernoulli_logits'), _channels(golden, 'input/x_binary')
  ours = head('bernoulli', 1, channels=1)
  nll = -ours.log_prob(logits, x)
  results = {
    'recon_nats_nocrop': nll.sum((1, 2)),
    'recon_nats_crop': nll[:, 2:-2, 2:-2].sum((1, 2)),
    'mean': ours.mean(logits),
  }
  stored = {k: channels_last(v) for k, v in golden.under(f'output/{name}').items()}
  tolerance = lambda key: SUM if key.startswith('recon') else COMPONENT
  compare(results, stored, tolerance)


def _check_normal_kl(golden: Golden, name: str) -> None:
  inputs = {k: channels_last(v) for k, v in golden.under(f'input/{name}').items()}
  stored = {k: channels_last(v) for k, v in golden.under(f'output/{name}').items()}
  normal = NVAE().latent_config(flow_encodes=True).normal
  q = normal(inputs['mu_q'], inputs['logsig_q'])
  p = normal(inputs['mu_p'], inputs['logsig_p'])
  results = {'kl': q.kl(p), 'q_sigma': q.std, 'q_mu': q.mean}
  for key in stored:
    if key.startswith('sigma_temp'):
      temperature = float(key.removeprefix('sigma_temp'))
      results[key] = normal(inputs['mu_q'], inputs['logsig_q'], temperature).std
    elif key.startswith('z_eps'):
      z = results[key] = q.sample(float(key.removeprefix('z_eps')))
      results |= {'log_p_q': q.log_prob(z), 'log_p_p': p.log_prob(z)}
  compare(results, stored, lambda _: COMPONENT)


def seed_cases(golden: Golden) -> Cases:
  cases: Cases = {}
  for name in golden.names_under('output'):
    kind, _, rest = name.partition('_t')
    if name in ('logistic_mixture', 'gaussian_mixture', 'gaussian'):
      check = functools.partial(_check_seed_head, golden, name)
    elif kind == 'normal':
      check = functools.partial(_check_seed_deviation, golden, name, float(rest))
    elif name.startswith('kl_scheduler'):
      check = functools.partial(_check_scheduler, golden, name)
    else:
      others = {'kl': _check_seed_kl, 'reg': _check_power, 'ar_mask_seed': pieces.check_masks}
      check = functools.partial(others[name], golden, name)
    cases[name] = check
  return cases


def _check_seed_head(golden: Golden, name: str) -> None:
  stored = golden.under(f'output/{name}')
  mixtures, x = golden.config['n_mix'], _channels(golden, 'input/x')
  ours = head(name, mixtures, channels=x.shape[-1])
  out = _channels(golden, 'input/gaussian_params' if name == 'gaussian' else 'input/mixture_params')
  values, grad = _graded(lambda out: ours.log_prob_of_colours(out, x), out)
  if 'log_p' in stored:
    networks.mostly(values, channels_last(stored.pop('log_p')))
  if 'grad_params' in stored:
    _compare_gradient(grad, stored.pop('grad_params'))
  results = {'mean': ours.mean(out), 'most_likely_value': ours.mode(out)}
  if name == 'gaussian':
    dist = heads.plain(out)
    results |= {'mu': dist.mean, 'scale': dist.std}
  else:
    mixture = ours._mixture(out)
    scale = mixture.log_scales if name == 'logistic_mixture' else jnp.exp(mixture.log_scales)
    # Ours [B, H, W, colour, k] -> [B, colour, k, H, W].
    turned = lambda a: jnp.moveaxis(a, (3, 4), (1, 2))
    results |= {'logits': turned(mixture.logits), 'mu': turned(mixture.means)}
    results['scale'] = turned(scale)
  if stored:
    compare(results, {k: channels_last(v) for k, v in stored.items()}, lambda _: COMPONENT)


def _seed_normal(channels: np.ndarray, temperature: float | None = None):
  form = networks.model_of(SEED).latent_config(flow_encodes=True)
  return form.normal(*np.split(channels, 2, axis=-1), temperature)


SEED = dict(
  channel_towers=4,
  number_of_scales=1,
  initial_splits_per_scale=1,
  latent_size=3,
  input_dimension=16,
  num_flows=0,
  num_blocks_prepost=1,
  num_cells_per_block_prepost=2,
  cells_per_split_enc=2,
  cells_per_input_dec=1,
  channel_multiplier=2,
  exponential_scaling=1,
  min_splits=1,
  sampling_method='gaussian',
  n_mix=3,
  fixed_flows=False,
  _loss=dict(kl_constant=1, regularization_constant=0.05, warmup_epochs=30),
)


def _check_seed_deviation(golden: Golden, name: str, temperature: float) -> None:
  results = _seed_normal(_channels(golden, 'input/gaussian_params'), temperature)
  stored = channels_last(golden[f'output/{name}/sigma'])
  compare({'sigma': results.std}, {'sigma': stored}, lambda _: COMPONENT)


def _check_seed_kl(golden: Golden, name: str) -> None:
  q, p = (_seed_normal(_channels(golden, f'input/kl/{key}_params')) for key in 'qp')
  compare({'kl': q.kl(p)}, {'kl': channels_last(golden['output/kl/kl'])}, lambda _: COMPONENT)


def _check_power(golden: Golden, name: str) -> None:
  weight, start = golden['input/reg/weight'], golden['input/reg/v0']
  penalty = lambda w: regularisers.power_penalty(w.reshape(len(w), -1), start)
  value, grad = golden_files.quick_jit(jax.value_and_grad(penalty))(weight)
  stored = golden.under(f'output/{name}')
  if 'grad_weight' in stored:
    gradient = stored.pop('grad_weight')
    assert np.linalg.norm(grad - gradient) < GRADIENT * np.linalg.norm(gradient)
  if stored:
    compare({'value': value}, stored, lambda _: COMPONENT)


def _check_scheduler(golden: Golden, name: str) -> None:
  """Checks the weighted KL: the mean over the batch, or per example while it is balanced."""
  c, kl = golden.config['kl_scheduler'], golden['input/kl_scheduler/kl_losses'].T
  groups = NVAE(
    num_latent_scales=c['number_of_scales'],
    num_groups_per_scale=c['initial_splits_per_scale'],
    group_divider=c['exponential_scaling'],
    min_groups_per_scale=c['min_splits'],
  ).groups_per_scale
  alpha = objective.alphas(groups, 'square')
  stored = golden.under(f'output/{name}')
  if name == 'kl_scheduler':
    compare({'multiplier': alpha}, stored, lambda _: COMPONENT)
    return
  model = NVAE(kl_schedule='epochs', kl_warmup_epochs=c['kl_warm_steps'], steps_per_epoch=1)
  beta = objective.beta(model, jnp.int32(name.removeprefix('kl_scheduler_step')))
  balanced = (objective.balance(kl, alpha) * kl).sum(-1) if beta < 1 else kl.sum(-1).mean()
  results = {'warm_up_coeff': beta, 'balanced': balanced}
  compare(results, stored, lambda key: Tolerance(1e-5, 1e-5))
