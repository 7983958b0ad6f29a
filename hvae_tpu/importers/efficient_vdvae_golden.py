"""What the forward files of Efficient-VDVAE's JAX form hold, computed by our network."""

import functools
import math
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.importers import efficient_vdvae_table, golden
from hvae_tpu.importers.golden import Forward, Tolerance, constant, noise
from hvae_tpu.models import hierarchy
from hvae_tpu.models.efficient_vdvae import EfficientVDVAE
from hvae_tpu.models.efficient_vdvae.network import Net
from hvae_tpu.models.protocol import Metrics
from hvae_tpu.nn import layers
from hvae_tpu.nn.distributions import Normal

# Float32 against float32 of another program.
FEATURES = Tolerance(0, 2e-5)  # logits, latents, samples
LOSS = Tolerance(2e-5, 1e-6)  # likelihoods, divergences and their sums

watched = functools.partial(golden.watched, Net)


def pixels(model: EfficientVDVAE, image: Any) -> Any:
  """The images of a file as ours: the reference writes binary pixels as 0 and 1."""
  return image * 255 if model.likelihood == 'bernoulli' else image


def theirs(model: EfficientVDVAE, out: Array) -> Array:
  """Output channels in the reference's order."""
  if model.likelihood == 'bernoulli':
    return out
  return out[..., np.argsort(efficient_vdvae_table.channels_by_colour(model.num_mixtures))]


def ours(model: EfficientVDVAE, logits: Array) -> Array:
  """The inverse of `theirs`."""
  if model.likelihood == 'bernoulli':
    return logits
  return logits[..., efficient_vdvae_table.channels_by_colour(model.num_mixtures)]


def raw_scale(model: EfficientVDVAE, logstd: Array) -> Array:
  """What a file calls the scale: the deviation, or the raw log-scale for base `logstd`."""
  if model.distribution_base == 'logstd':
    return logstd / model.gradient_smoothing_beta
  return jnp.exp(logstd)


def features(model: EfficientVDVAE, run: tuple) -> dict[str, Array]:
  """What a watched run computed, under the names of the files; groups from the coarsest."""
  (out, levels), inside = run
  named = {'logits': theirs(model, out)}
  number = 0
  for blocks, level in zip(model.down_runs, levels, strict=True):
    kept = jax.tree.map(jnp.asarray, inside['top_down'][blocks.name])
    for group, prior in layers.unstack((level.group, kept['prior_dist'][0]), blocks.count):
      posterior = Normal(group.mean, jnp.log(group.scale))
      for name, dist in (('posterior', posterior), ('prior', prior)):
        named[f'{name}_{number}_mean'] = dist.mean
        named[f'{name}_{number}_scale'] = raw_scale(model, dist.logstd)
      named[f'z_{number}'] = group.z
      number += 1
  return named


def summary(model: EfficientVDVAE, metrics: Metrics, kl: Array) -> dict[str, Array]:
  """The numbers of the files, from the metrics of a pass and its KL per variate [B, L, V].

  Unlike the reference's logs, the files have binary images in bits per dimension too.
  """
  positions = model.level_sizes / model.zdim
  return {
    'nll_per_example': metrics['nll'],
    'kl_per_layer': metrics['kl_per_level'].T,
    'metric_avg_recon_loss': metrics['nll_bpd'].mean(),
    'metric_kl_div': metrics['kl_bpd'].mean(),
    'metric_avg_kl_divs': metrics['kl_per_level'].mean(0) / (model.level_sizes * math.log(2)),
    'div_stats': kl.mean(0) / (positions[:, None] * math.log(2)),
  }


def run(
  model: EfficientVDVAE, params: Any, image: Any, eps: Any, step: Array | None = None
) -> tuple[Array, dict[str, Array]]:
  """Loss in nats/dim, and the results that a file holds for a pass.

  Args:
    eps: what every draw of the latent variables is.
    step: of training; None gives the ELBO.
  """
  batch = {'image': pixels(model, image)}
  train, step = step is not None, 0 if step is None else step
  with watched() as seen, noise(normal=constant(eps)):
    rng = jax.random.key(0)
    loss, (_, metrics) = model.loss(params, {}, batch, rng=rng, step=step, train=train)
  return loss, results(model, seen[0], metrics)


def results(model: EfficientVDVAE, watched_run: tuple, metrics: Metrics) -> dict[str, Array]:
  """Features and numbers of a pass, under the names of the files."""
  (_, levels), _ = watched_run
  kl = hierarchy.kl_of_runs(levels)
  found = features(model, watched_run) | summary(model, metrics, kl)
  if 'weighted_kl_bpd' in metrics:
    found['kl_div'] = metrics['weighted_kl_bpd'] * math.log(2)
  return found


def tolerance(name: str) -> Tolerance:
  is_sum = name in ('nll_per_example', 'kl_per_layer', 'div_stats') or name.startswith('metric_')
  return LOSS if is_sum else FEATURES


def _unchanged(name: str, value: np.ndarray) -> np.ndarray:
  return value


forward = Forward(
  run=run,
  expected=_unchanged,
  tolerance=tolerance,
  # What is drawn from the likelihood, and what depends on the step.
  apart=(
    'loss',
    'kl_div',
    'sample_u0.5',
    'sample_u0.9',
    'ssim_vs_sample_u0.5',
    'variate_mask_from_div_stats',
  ),
)
