"""Results of a pass of our network, under the names of the forward files of the two references.

The release is openai/vdvae (PyTorch, NCHW); the port is j-towns/vdvae-jax (NHWC).
"""

import functools
import math
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.protocol import Metrics
from hvae_tpu.models.vdvae import VDVAE
from hvae_tpu.models.vdvae.network import Encoder, Net
from hvae_tpu.nn import layers
from tests.support import tracing
from tests.support.golden_files import Tolerance
from tests.support.tracing import constant, noise

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


watched = functools.partial(tracing.watched, Net, lambda module, _: isinstance(module, Encoder))


def features(model: VDVAE, run: tuple) -> dict[str, Array]:
  """Returns the intermediates of a watched run, NHWC, under the names of the files.

  Levels are numbered in order of execution; the last one is also called 'last'.
  """
  (logits, levels), inside = run
  named = {'logits': logits, 'px_z': inside['px_z'][0]}
  if 'encoder' in inside:
    (acts,) = inside['encoder']['__call__']
    named |= {f'acts/{res}': value for res, value in acts.items()}
  number = 0
  for blocks, level in zip(model.decoder_runs, levels, strict=True):
    sown = jax.tree.map(jnp.asarray, inside['decoder'][blocks.name])
    stacked = (level, sown['prior_dist'][0], sown['kl'][0])
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
  """Turns a feature of the release from NCHW to NHWC; images and logits already are."""
  is_feature = value.ndim == 4 and name.split('/')[0] != 'logits'
  return value.transpose(0, 2, 3, 1) if is_feature else value


def release_tolerance(name: str) -> Tolerance:
  return RELEASE_TOLERANCES.get(name.split('/')[0], FEATURES)


def port_tolerance(name: str) -> Tolerance:
  return PORT_TOLERANCES.get(name.split('/')[0], PORT)


def _run(
  model: VDVAE, params: Any, image: Any, eps: Any
) -> tuple[Array, Metrics, dict[str, Array]]:
  """Computes training loss, metrics and features; every draw of the latents is `eps`."""
  with watched() as runs, noise(normal=constant(eps)):
    loss, (_, metrics) = model.loss(
      params,
      {},
      {'image': image},
      rng=jax.random.key(0),
      step=jnp.zeros((), jnp.int32),
      train=True,
    )
  return loss, metrics, features(model, runs[0])


def release_run(model: VDVAE, params: Any, image: Any, eps: Any) -> tuple[Array, dict[str, Array]]:
  """Computes the loss, nats/dim, and the results in a file of the release, without gradients."""
  loss, metrics, results = _run(model, params, image, eps)
  return loss, results | {
    'elbo': loss,
    'nll_per_example': metrics['nll'] / model.num_dims,
    'kl_per_example': metrics['kl'] / model.num_dims,
    'distortion': metrics['nll'].mean() / model.num_dims,
    'rate': metrics['kl'].mean() / model.num_dims,
    'bits_per_dim': metrics['bpd'].mean(),
  }


def port_run(model: VDVAE, params: Any, image: Any, eps: Any) -> tuple[Array, dict[str, Array]]:
  """Computes the loss, nats/dim, and the results in a file of the port, without gradients."""
  loss, metrics, results = _run(model, params, image, eps)
  return loss, results | {
    'elbo_bpd': -loss / math.log(2),
    'log_likelihood_bpd': -metrics['nll_bpd'].mean(),
    'kl_bpd': metrics['kl_bpd'].mean(),
    'loglik_per_example_nats': -metrics['nll'],
  }
