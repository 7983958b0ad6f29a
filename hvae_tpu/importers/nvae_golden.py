"""What the stored results of NVAE's two references hold of a pass, computed by our network.

The release is NVlabs/NVAE, the other mgp123/nvae; their arrays are NCHW. `--verify` compares their
passes in evaluation, whose results are named `output/eval_eps<number>/...`.
"""

from collections.abc import Mapping
import functools
import re
from typing import Any

import jax
from jax import Array
import numpy as np

from hvae_tpu.importers import golden, nvae_table
from hvae_tpu.importers.golden import Forward, Tolerance, constant, noise
from hvae_tpu.models import hierarchy
from hvae_tpu.models.nvae import NVAE
from hvae_tpu.models.nvae.network import Net
from hvae_tpu.nn import distributions, layers

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


def images(stored: Mapping[str, np.ndarray]) -> np.ndarray | None:
  """The images of a file as ours, NHWC; binary pixels are 0 and 1 there."""
  if 'input/x' not in stored or 'input/x_uint8' not in stored:
    return None
  x = channels_last(np.asarray(stored['input/x']))
  if x.shape[-1] == 1:
    return np.asarray(x * 255, np.uint8)
  return channels_last(np.asarray(stored['input/x_uint8']))


def channels_last(value: Any) -> Any:
  return np.moveaxis(value, 1, -1) if np.ndim(value) == 4 else value


def groups(model: NVAE, run: tuple) -> dict[str, Array]:
  """What a watched run computed in every group, NHWC, numbered from the coarsest one on."""
  (out, levels), inside = run
  found, number = {'logits': out, 'logits_sub4': out[:, ::4, ::4]}, 0
  paths = ['first', *(run.name for run in model.top_down_runs if run.count)]
  for path, level in zip(paths, levels, strict=True):
    (prior,) = inside['top_down'][path]['latent']['prior']
    if path == 'first':
      prior = jax.tree.map(lambda leaf: leaf[None], prior)
    for of_group, p in layers.unstack((level, prior), len(level.kl)):
      group, kl = of_group.group, of_group.kl
      for name, value in (('q_mu', group.mean), ('q_sigma', group.scale), ('z', group.z)):
        found[f'{name}/{number}'] = value
      found |= {f'p_mu/{number}': p.mean, f'p_sigma/{number}': p.std}
      found[f'kl_diag/{number}'] = kl.mean(0)
      number += 1
  return found


def numbers(model: NVAE, run: tuple, target: Array) -> dict[str, Array]:
  """Likelihoods and divergences of a watched run, by the names that both references have."""
  (out, levels), _ = run
  nll, kl = model.nll(out, target), hierarchy.kl_of_runs(levels).sum(-1)
  metrics = distributions.elbo_metrics(nll, kl[..., None], model.num_dims)
  return {'recon_nats': nll, 'kl_all': kl, 'bpd_elbo': metrics['bpd'], 'kl_vals': kl.mean(0)}


def densities(levels: list, nll: Array) -> dict[str, Array]:
  """Log-densities of the draws, [B], as the release names them."""
  log_q, log_p = (sum(getattr(v, name).sum(0) for v in levels) for name in ('log_q', 'log_p'))
  return {'log_q': log_q, 'log_p': log_p, 'log_iw': log_p - log_q - nll}


def _run(is_release: bool, model: NVAE, params: Any, state: Any, image: Any, eps: Any):
  """Loss in nats, and the results of a pass where every draw of the latent variables is `eps`."""
  target = model.scale_target(image)
  with golden.watched(Net) as seen, noise(normal=constant(eps)):
    _, levels = model.infer(params, state, image, jax.random.key(0))
  found = groups(model, seen[0]) | numbers(model, seen[0], target)
  nll, kl = found['recon_nats'], found['kl_all'].sum(-1)
  if is_release:
    found |= densities(levels, nll) | {'nelbo_nats': nll + kl}
  else:
    found['log_p'] = -nll
  return (nll + kl).mean(), found


def _forward(is_release: bool, tolerances: Mapping[str, Tolerance], *apart: str) -> Forward:
  return Forward(
    run=functools.partial(_run, is_release),
    expected=lambda name, value: channels_last(value),
    tolerance=lambda name: {**TOLERANCES, **tolerances}.get(name.split('/')[0], ACTIVATION),
    apart=('act_stats', *apart),
    fields=('params', 'model_state'),
    passes=re.compile(r'eval_eps\d+(\.\d+)?'),
    images=images,
    derived=nvae_table.DERIVED,
  )


release_forward = _forward(True, {})
# Of one example only, and what the training loss is made of.
other_forward = _forward(
  False,
  {'log_p': SUM},
  'logits',
  'mean',
  'most_likely_value',
  'kl_balanced_per_example',
  'warm_up_coeff',
  'regularization_loss',
  'regularization_loss_v0_ones',
  'bn_gamma_loss',
  'loss',
)
