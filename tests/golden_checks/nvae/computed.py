"""What a pass of our network computes, under the names of the files."""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.importers import golden as golden_lib
from hvae_tpu.importers import nvae_golden, nvae_table
from hvae_tpu.importers.golden import constant, noise
from hvae_tpu.models.nvae import NVAE, cells, convs, flows, regularisers
from hvae_tpu.models.nvae.network import Net
from tests.golden_checks.nvae import networks
from tests.support.golden_files import Golden

RNG = jax.random.key(0)
watched = functools.partial(
  golden_lib.watched,
  Net,
  lambda module, name: (
    name == '__call__' and isinstance(module, (cells.Cell, flows.FlowCell, convs.Conv))
  ),
)
SUFFIXES = ('', '.conv', '.model', '.1', '.model.1')  # of a module's convolution
SOWN = {'enc_combiner': 'combined', 'enc_top': 'top'}  # what a whole module returns


def image_of(golden: Golden) -> Array:
  """The images of a file as ours."""
  return jnp.asarray(nvae_golden.images(golden))


def activation(golden: Golden, model: NVAE, inside: Any) -> Callable[[str], Array]:
  """Name of a module in the reference -> what it returned."""
  names = networks.form_of(golden).names(model)
  places = {place.key: place for _, place, _ in nvae_table.modules(model, names)}

  def find(name: str) -> Array:
    place = next(places[name + s] for s in SUFFIXES if name + s in places)
    *path, last = place.path
    kept = inside
    for part in path if last in SOWN else (*path, last):
      kept = kept[part]
    (value,) = kept[SOWN.get(last, '__call__')]
    return value if place.index is None else value[place.index]

  return find


def features(golden: Golden, model: NVAE, run: tuple) -> dict[str, Array]:
  """What a watched run computed in groups and modules."""
  find, found = activation(golden, model, run[1]), nvae_golden.groups(model, run)
  acts = [find(name) for name in golden.config['_act_stats_names']]
  found['act_stats'] = jnp.stack([jnp.stack([a.mean(), a.std(), a.min(), a.max()]) for a in acts])
  for name in golden.names_under('output/train_eps0/act'):
    found[f'act/{name}'] = find(name)
  return found


def numbers(golden: Golden, model: NVAE, run: tuple, target: Array) -> dict[str, Array]:
  """Likelihoods and divergences of a watched run."""
  (out, levels), _ = run
  found = nvae_golden.numbers(model, run, target)
  nll = found['recon_nats']
  if networks.is_seed(golden.config):
    colours = model.head.log_prob_of_colours(out, target)
    stats = {'mean': model.head.mean(out), 'most_likely_value': model.head.mode(out)}
    return {**found, 'log_p': -nll, 'elementwise_log_p': colours, **stats}
  pixels = model.head.log_prob
  whole = pixels if model.likelihood == 'dmol' else model.head.log_prob_of_colours
  return {
    **found,
    **nvae_golden.densities(levels, nll),
    'nelbo_nats': nll + found['kl_all'].sum(-1),
    'elementwise_log_prob': whole(out, target),
  }


def objective(
  golden: Golden, model: NVAE, params: Any, state: Any, metrics: Any, step: int
) -> tuple[Array, Any, dict[str, Array]]:
  """Training loss, new state, and its parts."""
  loss, (state, found) = model.objective(params, state, metrics, RNG, jnp.int32(step))
  kl = found['balanced_kl']
  if networks.is_seed(golden.config):
    with noise(normal=constant(1.0)):
      ones = regularisers.power(params, model.flow_mask_side, RNG)
    parts = {
      'kl_balanced_per_example': kl / found['beta'],
      'warm_up_coeff': found['beta'],
      'bn_gamma_loss': found['batch_norm_scale'],
      'regularization_loss': found['spectral_norm'] + found['batch_norm_scale'],
      'regularization_loss_v0_ones': ones + found['batch_norm_scale'],
    }
    return loss, state, {'loss': loss, **parts}
  weights = found['kl_balance'][0]
  return (
    loss,
    state,
    {
      'loss': loss,
      'balanced_kl': kl,
      'kl_balance_coeffs': weights,
      'spectral_loss': found['spectral_norm'],
      'bn_loss': found['batch_norm_scale'],
    },
  )


def run(
  golden: Golden, model: NVAE, params: Any, state: Any, eps: Any, train: bool
) -> tuple[Array, tuple[Any, dict[str, Array]]]:
  """Training loss of a pass, the state after it, and everything that a file holds for a pass.

  Args:
    eps: what every normal draw is.
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
  found = features(golden, model, seen[0]) | numbers(golden, model, seen[0], target) | parts
  return loss, (state, found)
