"""Likelihoods, divergences and draws from given channels; weights of the KL; one regulariser."""

from collections.abc import Callable
import functools
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


def head(name: str, mixtures: int, bits: int = 8, temperature: float = 1.0) -> Head:
  return NVAE(
    likelihood=name,
    num_mixtures=mixtures,
    num_bits=bits,
    output_temperature=temperature,
    image_channels=1 if name == 'bernoulli' else 3,
  ).head


def _channels(golden: Golden, key: str) -> np.ndarray:
  return channels_last(golden[key])


def _compare_gradient(found: Any, expected: Any) -> None:
  found, expected = np.asarray(found), channels_last(expected)
  assert np.linalg.norm(found - expected) < GRADIENT * np.linalg.norm(expected)


def _graded(function: Callable[[Any], Any], out: Any) -> tuple[np.ndarray, np.ndarray]:
  """Values, and the gradient of their sum."""
  run = jax.value_and_grad(lambda v: (lambda y: (y.sum(), y))(function(v)), has_aux=True)
  (_, values), grad = golden_files.quick_jit(run)(out)
  return values, grad


def official_cases(golden: Golden) -> Cases:
  of_name = {
    'dmol_8bit': _check_dmol,
    'dmol_5bit': _check_dmol,
    'dmol': _check_dmol_draws,
    'disc_logistic': _check_one_logistic,
    'normal': _check_normal,
    'bernoulli': _check_bernoulli,
    'normal_kl': _check_normal_kl,
  }
  names = golden.names_under('output')
  return {name: functools.partial(of_name[name], golden, name) for name in names}


def _check_dmol(golden: Golden, name: str) -> None:
  bits = int(name[len('dmol_')])
  mine, stored = head('dmol', golden.config['num_mix'], bits), golden.under(f'output/{name}')
  x = _channels(golden, f'input/x_{bits}bit')
  out = _channels(golden, 'input/dmol_logits')
  values, grad = _graded(lambda out: mine.log_prob(out, x), out)
  networks.mostly(values, stored['log_prob'])
  compare({'recon': -values.sum((1, 2))}, {'recon': stored['recon_nats']}, lambda _: SUM)
  _compare_gradient(-grad, stored['grad_logits'])


def _check_dmol_draws(golden: Golden, name: str) -> None:
  out, mixtures = _channels(golden, 'input/dmol_logits'), golden.config['num_mix']
  stored = {key: channels_last(v) for key, v in golden.under(f'output/{name}').items()}
  draws = [_channels(golden, f'input/{key}') for key in ('u_gumbel', 'u_logistic')]
  found = {'mean': head('dmol', mixtures).mean(out)}
  for key in stored:
    if key.startswith('sample_t'):
      temperature = float(key.removeprefix('sample_t'))
      with noise(uniform=in_turn(*draws)):
        found[key] = head('dmol', mixtures, 8, temperature).draw(out, RNG)
  compare(found, stored, lambda _: COMPONENT)


def _check_one_logistic(golden: Golden, name: str) -> None:
  """One component without chained colours; the reference has it apart, with another clamp."""
  mean, scale = np.split(np.moveaxis(_channels(golden, 'input/pair_logits'), -1, 0), 2)
  zeros = np.zeros_like(mean)[:, None]
  mixture = distributions.LogisticMixture(zeros[0], mean[:, None], scale[:, None], zeros)
  x = 2 * _channels(golden, 'input/x_8bit') - 1
  stored = golden.under(f'output/{name}')
  # Per colour: the other colours of a pixel are given no weight by an own mixture each.
  for colour in range(3):
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
  u = _channels(golden, 'input/u_logistic')
  with noise(uniform=in_turn(np.full((*u.shape[:3], 1), 0.5, np.float32), u)):
    drawn = distributions.dmol_sample(RNG, mixture, min_log_scale=-8.0)
  found = {'sample': np.asarray(drawn) / 2 + 0.5}
  compare(found, {'sample': channels_last(stored['sample'])}, lambda _: COMPONENT)


def _check_normal(golden: Golden, name: str) -> None:
  out, x = _channels(golden, 'input/pair_logits'), _channels(golden, 'input/x_8bit')
  mine, stored = head('normal', 1), golden.under(f'output/{name}')
  values = mine.log_prob_of_colours(out, x)
  networks.mostly(values, channels_last(stored['log_prob']))
  found = {'recon_nats': -values.sum((1, 2, 3))}
  compare(found, {'recon_nats': stored['recon_nats']}, lambda _: SUM)
  for eps in (0, 1):
    with noise(normal=constant(eps)):
      drawn = {'x': mine.draw(out, RNG)}
    compare(drawn, {'x': channels_last(stored[f'sample_eps{eps}'])}, lambda _: COMPONENT)


def _check_bernoulli(golden: Golden, name: str) -> None:
  logits, x = _channels(golden, 'input/bernoulli_logits'), _channels(golden, 'input/x_binary')
  mine = head('bernoulli', 1)
  nll = -mine.log_prob(logits, x)
  found = {
    'recon_nats_nocrop': nll.sum((1, 2)),
    'recon_nats_crop': nll[:, 2:-2, 2:-2].sum((1, 2)),
    'mean': mine.mean(logits),
  }
  stored = {k: channels_last(v) for k, v in golden.under(f'output/{name}').items()}
  tolerance = lambda key: SUM if key.startswith('recon') else COMPONENT
  compare(found, stored, tolerance)


def _check_normal_kl(golden: Golden, name: str) -> None:
  inputs = {k: channels_last(v) for k, v in golden.under(f'input/{name}').items()}
  normal = NVAE().latent_config(flow_encodes=True).normal
  q = normal(inputs['mu_q'], inputs['logsig_q'])
  p = normal(inputs['mu_p'], inputs['logsig_p'])
  z = q.sample(0.5)
  found = {
    'kl': q.kl(p),
    'z_eps0.5': z,
    'log_p_q': q.log_prob(z),
    'log_p_p': p.log_prob(z),
    'q_sigma': q.std,
    'q_mu': q.mean,
    'sigma_temp0.7': normal(inputs['mu_q'], inputs['logsig_q'], 0.7).std,
  }
  stored = {k: channels_last(v) for k, v in golden.under(f'output/{name}').items()}
  compare(found, stored, lambda _: COMPONENT)


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
  mine = head(name, mixtures)
  out = _channels(golden, 'input/gaussian_params' if name == 'gaussian' else 'input/mixture_params')
  values, grad = _graded(lambda out: mine.log_prob_of_colours(out, x), out)
  networks.mostly(values, channels_last(stored.pop('log_p')))
  _compare_gradient(grad, stored.pop('grad_params'))
  found = {'mean': mine.mean(out), 'most_likely_value': mine.mode(out)}
  if name == 'gaussian':
    dist = heads.plain(out)
    found |= {'mu': dist.mean, 'scale': dist.std}
  else:
    mixture = mine._mixture(out)
    scale = mixture.log_scales if name == 'logistic_mixture' else jnp.exp(mixture.log_scales)
    # [B, H, W, colour, k] there as [B, colour, k, H, W].
    there = lambda a: jnp.moveaxis(a, (3, 4), (1, 2))
    found |= {'logits': there(mixture.logits), 'mu': there(mixture.means), 'scale': there(scale)}
  compare(found, {k: channels_last(v) for k, v in stored.items()}, lambda _: COMPONENT)


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
  found = _seed_normal(_channels(golden, 'input/gaussian_params'), temperature)
  stored = channels_last(golden[f'output/{name}/sigma'])
  compare({'sigma': found.std}, {'sigma': stored}, lambda _: COMPONENT)


def _check_seed_kl(golden: Golden, name: str) -> None:
  q, p = (_seed_normal(_channels(golden, f'input/kl/{key}_params')) for key in 'qp')
  compare({'kl': q.kl(p)}, {'kl': channels_last(golden['output/kl/kl'])}, lambda _: COMPONENT)


def _check_power(golden: Golden, name: str) -> None:
  weight, start = golden['input/reg/weight'], golden['input/reg/v0']
  penalty = lambda w: regularisers.power_penalty(w.reshape(len(w), -1), start)
  value, grad = golden_files.quick_jit(jax.value_and_grad(penalty))(weight)
  compare({'value': value}, {'value': golden['output/reg/value']}, lambda _: COMPONENT)
  stored = golden['output/reg/grad_weight']
  assert np.linalg.norm(grad - stored) < GRADIENT * np.linalg.norm(stored)


def _check_scheduler(golden: Golden, name: str) -> None:
  """The mean over the batch of the weighted KL; per example as long as it is balanced."""
  c, kl = golden.config['kl_scheduler'], golden['input/kl_scheduler/kl_losses'].T
  groups = (c['initial_splits_per_scale'],) * c['number_of_scales']
  alpha = objective.alphas(groups, 'square')
  stored = golden.under(f'output/{name}')
  if name == 'kl_scheduler':
    compare({'multiplier': alpha}, stored, lambda _: COMPONENT)
    return
  model = NVAE(kl_schedule='epochs', kl_warmup_epochs=c['kl_warm_steps'], steps_per_epoch=1)
  beta = objective.beta(model, jnp.int32(name.removeprefix('kl_scheduler_step')))
  balanced = (objective.balance(kl, alpha) * kl).sum(-1) if beta < 1 else kl.sum(-1).mean()
  found = {'warm_up_coeff': beta, 'balanced': balanced}
  compare(found, stored, lambda key: Tolerance(1e-5, 1e-5))
