"""Results of a pass of our network, under the names of the files of Efficient-VDVAE's JAX form."""

import functools
import math
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.importers import efficient_vdvae
from hvae_tpu.models import hierarchy
from hvae_tpu.models.efficient_vdvae import EfficientVDVAE
from hvae_tpu.models.efficient_vdvae.network import Net
from hvae_tpu.models.protocol import Metrics
from hvae_tpu.nn import layers
from hvae_tpu.nn.distributions import Normal
from tests.support import tracing
from tests.support.golden_files import Tolerance
from tests.support.tracing import constant, noise

# Float32 against float32 of another program.
FEATURES = Tolerance(0, 2e-5)  # logits, latents, samples
LOSS = Tolerance(2e-5, 1e-6)  # likelihoods, divergences and their sums

watched = functools.partial(tracing.watched, Net)


def pixels(model: EfficientVDVAE, image: Any) -> Any:
  """Converts the images of a file to ours: the reference writes binary pixels as 0 and 1."""
  return image * 255 if model.likelihood == 'bernoulli' else image


def theirs(model: EfficientVDVAE, out: Array) -> Array:
  """Orders output channels as the reference does."""
  if model.likelihood == 'bernoulli':
    return out
  return out[..., np.argsort(efficient_vdvae.channels_by_colour(model.num_mixtures))]


def ours(model: EfficientVDVAE, logits: Array) -> Array:
  """Inverts `theirs`."""
  if model.likelihood == 'bernoulli':
    return logits
  return logits[..., efficient_vdvae.channels_by_colour(model.num_mixtures)]


def raw_scale(model: EfficientVDVAE, logstd: Array) -> Array:
  """Returns the deviation, or for base `logstd` the raw log-scale: the `scale` of the files."""
  if model.distribution_base == 'logstd':
    return logstd / model.gradient_smoothing_beta
  return jnp.exp(logstd)


def features(model: EfficientVDVAE, run: tuple) -> dict[str, Array]:
  """Returns the intermediates of a watched run, by the names of the files; coarsest group first."""
  (out, levels), inside = run
  named = {'logits': theirs(model, out)}
  number = 0
  for blocks, level in zip(model.down_runs, levels, strict=True):
    sown = jax.tree.map(jnp.asarray, inside['top_down'][blocks.name])
    for group, prior in layers.unstack((level.group, sown['prior_dist'][0]), blocks.count):
      posterior = Normal(group.mean, jnp.log(group.scale))
      for name, dist in (('posterior', posterior), ('prior', prior)):
        named[f'{name}_{number}_mean'] = dist.mean
        named[f'{name}_{number}_scale'] = raw_scale(model, dist.logstd)
      named[f'z_{number}'] = group.z
      number += 1
  return named


def summary(model: EfficientVDVAE, metrics: Metrics, kl: Array) -> dict[str, Array]:
  """Computes the numbers of the files from a pass's metrics and its KL per variate [B, L, V].

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
  """Computes the loss, nats/dim, and the results that a file holds for a pass.

  Args:
    model: network and objective.
    params: its parameters.
    image: images of a file.
    eps: value of every draw of the latent variables.
    step: training step; None gives the ELBO.
  """
  batch = {'image': pixels(model, image)}
  train, step = step is not None, 0 if step is None else step
  with watched() as runs, noise(normal=constant(eps)):
    rng = jax.random.key(0)
    loss, (_, metrics) = model.loss(params, {}, batch, rng=rng, step=step, train=train)
  return loss, results(model, runs[0], metrics)


def results(model: EfficientVDVAE, watched_run: tuple, metrics: Metrics) -> dict[str, Array]:
  """Returns features and numbers of a watched pass, under the names of the files."""
  (_, levels), _ = watched_run
  kl = hierarchy.kl_of_runs(levels)
  named = features(model, watched_run) | summary(model, metrics, kl)
  if 'weighted_kl_bpd' in metrics:
    named['kl_div'] = metrics['weighted_kl_bpd'] * math.log(2)
  return named


def tolerance(name: str) -> Tolerance:
  is_sum = name in ('nll_per_example', 'kl_per_layer', 'div_stats') or name.startswith('metric_')
  return LOSS if is_sum else FEATURES
