"""Inverse autoregressive flows on the latent variables of a group; they preserve volume.

Reference: NVAE, section 3.4; a pair of cells visits the pixels in opposite orders.
"""

from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.nvae.convs import Conv, Mask

EXPANSION = 6
SIDES = ('left', 'right')
ORDERS = ('straight', 'mirrored')
STRICT = {'dense': True, 'depthwise': False, 'mean': False}  # convolutions of a cell


class FlowConfig(NamedTuple):
  """Settings that all flows share.

  Attributes:
    norm: weight normalisation, see `convs.effective_kernel`.
    bias: whether all convolutions have a bias, or only the last.
    side: `flow_mask_side`, see `convs.Mask`.
    depthwise: form of depthwise convolutions, one of `cpu_kernels.FORMS`.
    dtype: dtype of the computation.
  """

  norm: str
  bias: bool
  side: str
  depthwise: str
  dtype: Any


def mask_of(path: tuple[str, ...], side: str) -> Mask | None:
  """Returns the mask of the convolution at a path of the parameter tree; None: no mask."""
  if len(path) < 2 or path[-2].rpartition('_')[2] not in ORDERS:
    return None
  return Mask(STRICT[path[-1]], path[-2].endswith('mirrored'), side)


class FlowCell(nn.Module):
  """A cell of a flow: z -> z - mean(earlier z); the determinant is 1."""

  mirrored: bool
  config: FlowConfig

  @nn.compact
  def __call__(self, z: Array) -> Array:
    config, zdim = self.config, z.shape[-1]
    hidden = EXPANSION * zdim
    mask = lambda name: Mask(STRICT[name], self.mirrored, config.side)
    make = lambda features, kernel, name, bias, **fields: Conv(
      features, kernel, config.norm, config.dtype, bias=bias, mask=mask(name), name=name, **fields
    )
    h = nn.elu(make(hidden, 3, 'dense', config.bias)(z))
    # Twice: once for this convolution, once for the next.
    spatial = make(hidden, 5, 'depthwise', config.bias, groups=0, depthwise=config.depthwise)
    h = nn.elu(nn.elu(spatial(h)))
    start = 0.1 if config.norm == 'log' else 1.0
    return z - make(zdim, 1, 'mean', True, initial_gain=start)(h).astype(z.dtype)


class Flow(nn.Module):
  """A flow of `pairs` pairs of cells."""

  pairs: int
  config: FlowConfig

  @nn.compact
  def __call__(self, z: Array) -> Array:
    for n in range(self.pairs):
      for order in ORDERS:
        z = FlowCell(order == 'mirrored', self.config, name=f'pair{n}_{order}')(z)
    return z


def mixture_log_cdf(
  z: Array, logits: Array, means: Array, log_scales: Array, log_a: Array, b: Array
) -> tuple[Array, Array]:
  """Computes the elementwise flow that the reference defines but never enables.

  Args:
    z, log_a, b: [...].
    logits, means, log_scales: [K, ...], of a mixture of logistics; log-scales are clamped at -7.

  Returns:
    z -> exp(log_a) logit(F(z)) + b with F the distribution function, and the log-determinant.
  """
  log_scales = jnp.maximum(log_scales, -7.0)
  u = -(z - means) * jnp.exp(-log_scales)
  log_pi = jax.nn.log_softmax(logits, axis=0)
  soft = jax.nn.softplus(u)
  log_f = jax.nn.logsumexp(log_pi - soft, axis=0)
  log_rest = jax.nn.logsumexp(log_pi - soft + u, axis=0)
  log_density = jax.nn.logsumexp(log_pi + u - log_scales - 2 * soft, axis=0)
  return jnp.exp(log_a) * (log_f - log_rest) + b, log_a - log_f - log_rest + log_density
