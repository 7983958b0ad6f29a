"""Results of a pass of our network, under the names of the files of NVAE's two references.

The release is NVlabs/NVAE, the other is mgp123/nvae; their arrays are NCHW.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.importers import nvae
from hvae_tpu.models import hierarchy
from hvae_tpu.models.nvae import NVAE, cells, convs, flows, regularisers
from hvae_tpu.models.nvae.network import Net
from hvae_tpu.nn import distributions, layers
from tests.golden_checks.nvae import networks
from tests.support import tracing
from tests.support.golden_files import Golden, Tolerance
from tests.support.tracing import constant, noise

RNG = jax.random.key(0)
watched = functools.partial(
  tracing.watched,
  Net,
  lambda module, name: (
    name == '__call__' and isinstance(module, (cells.Cell, flows.FlowCell, convs.Conv))
  ),
)
SUFFIXES = ('', '.conv', '.model', '.1', '.model.1')  # of a module's convolution
SOWN = {'enc_combiner': 'combined', 'enc_top': 'top'}  # names of results of whole modules


# Float32 against float32 on another framework, as two independent implementations need it.
ACTIVATION = Tolerance(1e-4, 1e-4)
SUM = Tolerance(2e-5, 0)
KL = Tolerance(2e-4, 2e-3)
LOG_WEIGHT = Tolerance(2e-5, 2e-3)  # a difference that contains the KL
TOLERANCES = {
  **dict.fromkeys(('recon_nats', 'nelbo_nats', 'bpd_elbo'), SUM),
  **dict.fromkeys(('kl_all', 'kl_vals', 'kl_diag', 'log_q', 'log_p'), KL),
  'log_iw': LOG_WEIGHT,
}


def image_of(golden: Golden) -> Array:
  """Returns the images of a file as ours, NHWC; binary pixels are 0 and 1 there."""
  x = channels_last(golden['input/x'])
  is_binary = x.shape[-1] == 1
  return jnp.asarray(x * 255, jnp.uint8) if is_binary else channels_last(golden['input/x_uint8'])


def channels_last(value: Any) -> Any:
  """Turns NCHW to NHWC; arrays of other ranks stay."""
  return np.moveaxis(value, 1, -1) if np.ndim(value) == 4 else value


def groups(model: NVAE, run: tuple) -> dict[str, Array]:
  """Returns the results of every group of a watched run, NHWC, numbered from the coarsest one."""
  (out, levels), inside = run
  named, number = {'logits': out, 'logits_sub4': out[:, ::4, ::4]}, 0
  paths = ['first', *(run.name for run in model.top_down_runs if run.count)]
  for path, level in zip(paths, levels, strict=True):
    (prior,) = inside['top_down'][path]['latent']['prior']
    if path == 'first':
      prior = jax.tree.map(lambda leaf: leaf[None], prior)
    for of_group, p in layers.unstack((level, prior), len(level.kl)):
      group, kl = of_group.group, of_group.kl
      for name, value in (('q_mu', group.mean), ('q_sigma', group.scale), ('z', group.z)):
        named[f'{name}/{number}'] = value
      named |= {f'p_mu/{number}': p.mean, f'p_sigma/{number}': p.std}
      named[f'kl_diag/{number}'] = kl.mean(0)
      number += 1
  return named


def common_numbers(model: NVAE, run: tuple, target: Array) -> dict[str, Array]:
  """Returns likelihoods and divergences of a watched run that both references have."""
  (out, levels), _ = run
  nll, kl = model.nll(out, target), hierarchy.kl_of_runs(levels).sum(-1)
  metrics = distributions.elbo_metrics(nll, kl[..., None], model.num_dims)
  return {'recon_nats': nll, 'kl_all': kl, 'bpd_elbo': metrics['bpd'], 'kl_vals': kl.mean(0)}


def densities(levels: list, nll: Array) -> dict[str, Array]:
  """Returns log-densities of the draws, [B], as the release names them."""
  log_q, log_p = (sum(getattr(v, name).sum(0) for v in levels) for name in ('log_q', 'log_p'))
  return {'log_q': log_q, 'log_p': log_p, 'log_iw': log_p - log_q - nll}


def activation(golden: Golden, model: NVAE, inside: Any) -> Callable[[str], Array]:
  """Returns name of a module in the reference -> its output."""
  names = networks.names_of(golden, model)
  places = {place.key: place for _, place, _ in nvae.table.modules(model, names)}

  def find(name: str) -> Array:
    place = next(places[name + s] for s in SUFFIXES if name + s in places)
    *path, last = place.path
    node = inside
    for part in path if last in SOWN else (*path, last):
      node = node[part]
    (value,) = node[SOWN.get(last, '__call__')]
    return value if place.index is None else value[place.index]

  return find


def features(golden: Golden, model: NVAE, run: tuple) -> dict[str, Array]:
  """Returns the outputs of groups and modules of a watched run."""
  find, results = activation(golden, model, run[1]), groups(model, run)
  if acts := [find(name) for name in golden.config.get('_act_stats_names', ())]:
    stats = [jnp.stack([a.mean(), a.std(), a.min(), a.max()]) for a in acts]
    results['act_stats'] = jnp.stack(stats)
  names = [key.rpartition('/act/')[2] for key in golden.keys if '/act/' in key]
  results |= {f'act/{name}': find(name) for name in dict.fromkeys(names)}
  return results


def numbers(golden: Golden, model: NVAE, run: tuple, target: Array) -> dict[str, Array]:
  """Likelihoods and divergences of a watched run."""
  (out, levels), _ = run
  results = common_numbers(model, run, target)
  nll = results['recon_nats']
  if networks.is_seed(golden.config):
    colours = model.head.log_prob_of_colours(out, target)
    stats = {'mean': model.head.mean(out), 'most_likely_value': model.head.mode(out)}
    return {**results, 'log_p': -nll, 'elementwise_log_p': colours, **stats}
  pixels = model.head.log_prob
  whole = pixels if model.likelihood == 'dmol' else model.head.log_prob_of_colours
  return {
    **results,
    **densities(levels, nll),
    'nelbo_nats': nll + results['kl_all'].sum(-1),
    'elementwise_log_prob': whole(out, target),
  }


def objective(
  golden: Golden, model: NVAE, params: Any, state: Any, metrics: Any, step: int
) -> tuple[Array, Any, dict[str, Array]]:
  """Returns training loss, new state, and its parts."""
  loss, (state, results) = model.objective(params, state, metrics, RNG, jnp.int32(step))
  kl = results['balanced_kl']
  if networks.is_seed(golden.config):
    with noise(normal=constant(1.0)):
      ones = regularisers.power(params, model.flow_mask_side, RNG)
    parts = {
      'kl_balanced_per_example': kl / results['beta'],
      'warm_up_coeff': results['beta'],
      'bn_gamma_loss': results['batch_norm_scale'],
      'regularization_loss': results['spectral_norm'] + results['batch_norm_scale'],
      'regularization_loss_v0_ones': ones + results['batch_norm_scale'],
    }
    return loss, state, {'loss': loss, **parts}
  weights = results['kl_balance'][0]
  return (
    loss,
    state,
    {
      'loss': loss,
      'balanced_kl': kl,
      'kl_balance_coeffs': weights,
      'spectral_loss': results['spectral_norm'],
      'bn_loss': results['batch_norm_scale'],
    },
  )


def run(
  golden: Golden, model: NVAE, params: Any, state: Any, eps: Any, train: bool
) -> tuple[Array, tuple[Any, dict[str, Array]]]:
  """Returns the training loss of a pass, and (the state after it, all results of the file).

  Args:
    eps: value of every normal draw.
    train: whether batch normalisation uses the batch.
  """
  image = image_of(golden)
  x, target = model.scale_input(image), model.scale_target(image)
  step = golden.config['_loss'].get('current_step', 0)
  with watched() as seen, noise(normal=constant(eps)):
    out, levels, stats = model.run_with_stats(params, state, x, len(x), RNG, train=train)
    metrics = model.metrics(out, target, levels)
    state = {**state, 'batch_stats': stats}
    loss, state, parts = objective(golden, model, params, state, metrics, step)
  results = features(golden, model, seen[0]) | numbers(golden, model, seen[0], target) | parts
  return loss, (state, results)
