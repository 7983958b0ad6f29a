"""Masks, weight normalisation, resampling, flows, first weights from data, schedules, Adamax."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs.systems import nvae as system
from hvae_tpu.importers import nvae, tables
from hvae_tpu.importers.nvae.table import GAIN
from hvae_tpu.models.nvae import NVAE, cells, convs, flows, objective
from hvae_tpu.training import optimizers
from tests.golden_checks.nvae.computed import channels_last
from tests.golden_checks.nvae.networks import COMPONENT, SCHEDULE, Cases
from tests.support.golden_files import Golden, compare

GROUPS = {'mnist': (5, 10), 'celeba64': (5, 10, 20), 'celebahq256': (4, 4, 4, 8, 16)}
GROUPS |= {'celeba256': GROUPS['celebahq256'], 'ffhq': GROUPS['celebahq256'], 'cifar10': (30,)}


def piece_cases(golden: Golden) -> Cases:
  of_name = {
    'ar_mask_official': check_masks,
    'kl_balancer_coeff': _check_alphas,
    'upsample_bilinear_align_corners': _check_upsampling,
    'weight_norm': _check_weight_norm,
    'factorized_reduce': _check_skip,
    'paired_cell_ar': _check_flow,
    'mix_log_cdf': _check_log_cdf,
    'data_init': _check_start,
    'lr_schedule_official': _check_rates,
    'kl_coeff_official': _check_kl_weights,
    'lr_schedule_seed_per_epoch': _check_seed_rates,
    'adamax': _check_adamax,
  }
  cases: Cases = {}
  for name in golden.names_under('output'):
    balancer = name.startswith('kl_balancer_') and name not in of_name
    assert balancer or name in of_name, f'nothing checks output/{name}'
    check = _check_balance if balancer else of_name[name]
    cases[name] = functools.partial(check, golden, name)
  return cases


def check_masks(golden: Golden, name: str) -> None:
  side = 'right' if name.endswith('seed') else 'left'
  pattern = re.compile(r'k(\d+)_in(\d+)_g(\d+)_out(\d+)_zd(\d)_mir(\d)')
  for key, stored in golden.under(f'output/{name}').items():
    size, inputs, groups, outputs, strict, mirrored = map(int, pattern.fullmatch(key).groups())
    mask = convs.Mask(bool(strict), bool(mirrored), side)
    results = mask.array((size, size, inputs // groups, outputs))
    np.testing.assert_array_equal(tables.CONV.to_source(results), stored, err_msg=key)


def _check_alphas(golden: Golden, name: str) -> None:
  for key, stored in golden.under(f'output/{name}').items():
    kind, config = key.split('/')
    results = objective.alphas(GROUPS[config], kind)
    compare({key: results}, {key: stored}, lambda _: SCHEDULE)
  np.testing.assert_array_equal(objective.alphas((2, 3), 'const'), np.ones(5))


def _check_balance(golden: Golden, name: str) -> None:
  kl, alpha = golden['input/kl_all'], golden['input/alpha']
  beta = float(name.removeprefix('kl_balancer_'))
  weights = objective.balance(kl, alpha) if beta < 1 else jnp.ones(kl.shape[1])
  results = {'kl': beta * (weights * kl).sum(-1), 'coeffs': weights, 'vals': kl.mean(0)}
  compare(results, golden.under(f'output/{name}'), lambda _: COMPONENT)


def _check_upsampling(golden: Golden, name: str) -> None:
  results = cells.upsample_bilinear(jnp.asarray(channels_last(golden['input/upsample'])))
  compare({'x': results}, {'x': channels_last(golden[f'output/{name}'])}, lambda _: COMPONENT)


def _check_weight_norm(golden: Golden, name: str) -> None:
  kernel = tables.CONV.to_ours(golden['input/weight_norm/weight'])
  gain = jnp.log(convs.kernel_norm(kernel)[0, 0, 0] + 0.01)
  applied = convs.effective_kernel({'kernel': kernel, 'log_gain': gain})
  results = {
    'initial_log_weight_norm': GAIN.to_source(np.asarray(gain)),
    'effective_weight': tables.CONV.to_source(np.asarray(applied)),
  }
  compare(results, golden.under(f'output/{name}'), lambda _: COMPONENT)


def _leaves(golden: Golden, prefix: str) -> dict[str, np.ndarray]:
  """Parameters of one convolution of the reference."""
  kinds = {
    'weight': ('kernel', tables.CONV),
    'log_weight_norm': ('log_gain', GAIN),
    'bias': ('bias', tables.SAME),
  }
  leaves = {}
  for leaf, (ours, layout) in kinds.items():
    if f'param/{prefix}.{leaf}' in golden:
      leaves[ours] = layout.to_ours(golden[f'param/{prefix}.{leaf}'])
  return leaves


def _check_skip(golden: Golden, name: str) -> None:
  x = channels_last(golden['input/factorized_reduce/x'])
  stored = channels_last(golden[f'output/{name}'])
  params = {f'conv_{i}': _leaves(golden, f'{name}.conv_{i}') for i in range(1, 5)}
  skip = cells.SkipDown(stored.shape[-1], NVAE().cell_config(train=True))
  results = skip.apply({'params': params}, x)
  compare({'y': results}, {'y': stored}, lambda _: COMPONENT)


def _check_flow(golden: Golden, name: str) -> None:
  form = NVAE().latent_config(flow_encodes=True).flow
  convolutions = nvae.nvlabs_names(NVAE()).flow_convs
  z, results, whole = channels_last(golden[f'input/{name}/z']), {}, {}
  for cell, order in ((1, 'straight'), (2, 'mirrored')):
    params = {
      ours: _leaves(golden, f'{name}.cell{cell}{theirs}') for ours, theirs in convolutions.items()
    }
    whole[f'pair0_{order}'] = params
    z = flows.FlowCell(order == 'mirrored', form).apply({'params': params}, z)
    results[f'z_after_cell{cell}'] = z
  start = channels_last(golden[f'input/{name}/z'])
  results['z'] = flows.Flow(1, form).apply({'params': whole}, start)
  stored = {k: channels_last(v) for k, v in golden.under(f'output/{name}').items()}
  compare(results, stored, lambda _: COMPONENT)


def _check_log_cdf(golden: Golden, name: str) -> None:
  given = golden.under(f'input/{name}')
  # Components stand on the third axis there.
  mixture = [np.moveaxis(given[key], 2, 0) for key in ('logit_pi', 'mu', 'log_s')]
  z, log_det = flows.mixture_log_cdf(
    given['z'], *mixture, given['log_a'][:, :, 0], given['b'][:, :, 0]
  )
  compare({'z': z, 'log_det': log_det}, golden.under(f'output/{name}'), lambda _: COMPONENT)


def _check_start(golden: Golden, name: str) -> None:
  kernel = tables.CONV.to_ours(golden['input/data_init/weight'])
  op = cells.ResidualOp(cells.OPS['res_elu'], kernel.shape[-1], 1, NVAE().cell_config(train=True))
  x = jnp.asarray(channels_last(golden['input/data_init/x']))
  given = lambda rng, shape, *_: jnp.asarray(kernel)
  with _initial_kernel(given):
    y, variables = op.init_with_output(jax.random.key(0), x)
  leaves = variables['params']['conv']
  results = {
    'y': y,
    'bias': leaves['bias'],
    'log_weight_norm': GAIN.to_source(np.asarray(leaves['log_gain'])),
  }
  stored = {k: channels_last(v) for k, v in golden.under(f'output/{name}').items()}
  stored['log_weight_norm'] = golden[f'output/{name}/log_weight_norm']
  compare(results, stored, lambda _: COMPONENT)


def _initial_kernel(initializer: Any):
  from tests.support.tracing import replaced

  return replaced(convs.layers, uniform_fan_in=lambda: initializer)


def _rates(num_epochs: int, fields: dict[str, Any]):
  section = ml_collections.ConfigDict(system.base().optimizer)
  section.update(fields)
  return optimizers.create(section, num_epochs * section.steps_per_epoch)[1]


def _check_rates(golden: Golden, name: str) -> None:
  c, stored = golden.config['lr_schedule_official'], golden[f'output/{name}']
  rate = _rates(
    c['epochs'],
    dict(
      learning_rate=c['learning_rate'],
      min_learning_rate=c['learning_rate_min'],
      steps_per_epoch=c['steps_per_epoch'],
      warmup_steps=c['warmup_epochs'] * c['steps_per_epoch'],
      cosine_start=c['warmup_epochs'],
    ),
  )
  results = [rate(step) for step in range(len(stored))]
  compare({'rate': results}, {'rate': stored}, lambda _: SCHEDULE)


def _check_seed_rates(golden: Golden, name: str) -> None:
  """Checks one rate per epoch; the cosine starts an epoch later, and does not reach its end."""
  c, stored = golden.config['lr_schedule_seed'], golden[f'output/{name}']
  rate = _rates(
    c['epochs'],
    dict(
      learning_rate=c['learning_rate'],
      min_learning_rate=c['learning_rate_min'],
      steps_per_epoch=3,
      cosine_start=c['warmup_epochs'] + 1,
      cosine_epochs=c['epochs'] - c['warmup_epochs'] - 1,
    ),
  )
  results = np.array([rate(step) for step in range(3 * len(stored))]).reshape(-1, 3)
  compare({'rate': results}, {'rate': np.repeat(stored[:, None], 3, 1)}, lambda _: SCHEDULE)


def _check_kl_weights(golden: Golden, name: str) -> None:
  c, stored = golden.config['lr_schedule_official'], golden[f'output/{name}']
  total = c['epochs'] * c['steps_per_epoch']
  model = NVAE(
    kl_anneal_steps=c['kl_anneal_portion'] * total,
    kl_const_steps=c['kl_const_portion'] * total,
    kl_min=c['kl_const_coeff'],
  )
  results = [objective.beta(model, jnp.int32(step)) for step in range(len(stored))]
  compare({'beta': results}, {'beta': stored}, lambda _: SCHEDULE)


def _check_adamax(golden: Golden, name: str) -> None:
  c = golden.config['adamax']
  section = ml_collections.ConfigDict(system.base().optimizer)
  b1, b2 = c['betas']
  section.update(schedule='constant', learning_rate=c['lr'], eps=c['eps'], b1=b1, b2=b2)
  section.weight_decay = c['weight_decay']
  tx, rate = optimizers.create(section, 8)
  params = jnp.asarray(golden['input/adamax/param'])
  state, results = tx.init(params), []
  for step, grad in enumerate(golden['input/adamax/grads']):
    updates, state = tx.update(jnp.asarray(grad), state, params)
    params = params - rate(step) * updates
    results.append(params)
  compare({'params': np.stack(results)}, golden.under(f'output/{name}'), lambda _: COMPONENT)
