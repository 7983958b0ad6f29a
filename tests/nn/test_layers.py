"""Layers that systems share."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvae_tpu.models.cwvae import frames
from hvae_tpu.models.nvae import convs as nvae_convs
from hvae_tpu.nn import layers

START = nn.initializers.ones


@pytest.mark.parametrize(
  'module',
  [
    layers.Conv(6, 1, START, jnp.bfloat16),
    layers.Conv(6, 3, START, jnp.bfloat16),
    layers.Conv(6, 2, START, jnp.bfloat16, stride=2),
    layers.PaddedConv(6, 3, 1, START, START, jnp.bfloat16),
    nvae_convs.Conv(6, 3, '', jnp.bfloat16),
    frames.Conv(6, START, jnp.bfloat16, by_products=False),
  ],
  ids=['pointwise', 'same', 'patches', 'padded', 'nvae', 'cwvae'],
)
def test_gradients_of_biases_do_not_drown_in_rounding(module):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((16, 32, 32, 3)), jnp.bfloat16)
  params = module.init(jax.random.key(0), x)
  out, pull = jax.vjp(jax.jit(module.apply), params, x)
  cotangent = jnp.asarray(1 + rng.standard_normal(out.shape), out.dtype)
  gradient = jax.jit(pull)(cotangent)[0]['params']['bias']
  expected = np.asarray(cotangent, np.float64).sum((0, 1, 2))
  assert gradient.dtype == jnp.float32
  np.testing.assert_allclose(gradient, expected, rtol=1e-3)
