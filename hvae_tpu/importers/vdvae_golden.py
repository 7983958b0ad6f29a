"""What the forward files of the two VDVAE references hold, computed by our network.

The release is openai/vdvae (PyTorch, NCHW); the port is j-towns/vdvae-jax (NHWC).
"""

import functools
import math
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.importers import golden
from hvae_tpu.importers.golden import Forward, Tolerance, constant, noise
from hvae_tpu.models.protocol import Metrics
from hvae_tpu.models.vdvae import VDVAE
from hvae_tpu.models.vdvae.network import Encoder, Net
from hvae_tpu.nn import layers

# Float32 against float32 on another framework. Tight on purpose: the weights are small, and the
# tanh GELU in place of the erf form moves activations by only 2e-6 to 1e-5.
LOSS = Tolerance(1e-5, 1e-5)  # also the two parts of it, and bits/dim
LEVEL_KL = Tolerance(1e-6, 2e-5)  # nats
FEATURES = Tolerance(0, 2e-6)
GRAD_NORM = Tolerance(1e-4, 0)
PORT = Tolerance(1e-5, 2e-5)
LOG_PROB = Tolerance(1e-5, 1e-3)  # per example, nats

RELEASE_TOLERANCES = {
  'kl_sum': LEVEL_KL,
  'grad_norm': GRAD_NORM,
  **dict.fromkeys(
    ('nll_per_example', 'kl_per_example', 'elbo', 'distortion', 'rate', 'bits_per_dim'), LOSS
  ),
}
PORT_TOLERANCES = {
  'kl_sum': LEVEL_KL,
  'grad_norm': GRAD_NORM,
  'loglik_per_example_nats': LOG_PROB,
}


watched = functools.partial(golden.watched, Net, lambda module, _: isinstance(module, Encoder))


def features(model: VDVAE, run: tuple) -> dict[str, Array]:
  """What a watched run computed, NHWC, under the names of the files.

  Levels are numbered in order of execution, and the last one is also called so.
  """
  (logits, levels), inside = run
  named = {'logits': logits, 'px_z': inside['px_z'][0]}
  if 'encoder' in inside:
    (acts,) = inside['encoder']['__call__']
    named |= {f'acts/{res}': value for res, value in acts.items()}
  number = 0
  for blocks, level in zip(model.decoder_runs, levels, strict=True):
    kept = jax.tree.map(jnp.asarray, inside['decoder'][blocks.name])
    stacked = (level, kept['prior_dist'][0], kept['kl'][0])
    for (group, kl, *_), prior, kl_map in layers.unstack(stacked, blocks.count):
      number += 1
      of_level = {
        'z': group.z,
        'qm': group.mean,
        'qv': jnp.log(group.scale),
        'pm': prior.mean,
        'pv': prior.logstd,
        'kl_map': kl_map,
        'kl_sum': kl.sum(-1),
      }
      for name, value in of_level.items():
        named |= {f'{name}/{number - 1}': value, f'{name}/last': value}
  return named


def channels_last(name: str, value: Any) -> Any:
  """A feature of the release, NCHW, turned to NHWC; images and logits already are."""
  is_feature = value.ndim == 4 and name.split('/')[0] != 'logits'
  return value.transpose(0, 2, 3, 1) if is_feature else value


def _run(
  model: VDVAE, params: Any, image: Any, eps: Any
) -> tuple[Array, Metrics, dict[str, Array]]:
  """Training loss, metrics and features, where every draw of the latent variables is `eps`."""
  with watched() as seen, noise(normal=constant(eps)):
    loss, (_, metrics) = model.loss(
      params,
      {},
      {'image': image},
      rng=jax.random.key(0),
      step=jnp.zeros((), jnp.int32),
      train=True,
    )
  return loss, metrics, features(model, seen[0])


def release_run(model: VDVAE, params: Any, image: Any, eps: Any) -> tuple[Array, dict[str, Array]]:
  """Loss in nats/dim, and the results that a file of the release holds, but for gradients."""
  loss, metrics, found = _run(model, params, image, eps)
  return loss, found | {
    'elbo': loss,
    'nll_per_example': metrics['nll'] / model.num_dims,
    'kl_per_example': metrics['kl'] / model.num_dims,
    'distortion': metrics['nll'].mean() / model.num_dims,
    'rate': metrics['kl'].mean() / model.num_dims,
    'bits_per_dim': metrics['bpd'].mean(),
  }


def port_run(model: VDVAE, params: Any, image: Any, eps: Any) -> tuple[Array, dict[str, Array]]:
  """Loss in nats/dim, and the results that a file of the port holds, but for gradients."""
  loss, metrics, found = _run(model, params, image, eps)
  return loss, found | {
    'elbo_bpd': -loss / math.log(2),
    'log_likelihood_bpd': -metrics['nll_bpd'].mean(),
    'kl_bpd': metrics['kl_bpd'].mean(),
    'loglik_per_example_nats': -metrics['nll'],
  }


def _unchanged(name: str, value: np.ndarray) -> np.ndarray:
  return value


release_forward = Forward(
  run=release_run,
  expected=channels_last,
  tolerance=lambda name: RELEASE_TOLERANCES.get(name.split('/')[0], FEATURES),
  apart=('grad_norm',),
)
port_forward = Forward(
  run=port_run,
  expected=_unchanged,
  tolerance=lambda name: PORT_TOLERANCES.get(name.split('/')[0], PORT),
  apart=('grad_norm',),
)
