"""Gated recurrent units as in PyTorch: the reset gate acts after the hidden product."""

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.efficient_morl import weights


def gated(from_input: Array, from_state: Array, h: Array) -> Array:
  """Returns the new state.

  Args:
    from_input, from_state: [..., 3 H], products with biases of input and state for the reset gate,
      the update gate and the candidate.
    h: [..., H], the state.
  """
  reset_x, update_x, new_x = jnp.split(from_input, 3, axis=-1)
  reset_h, update_h, new_h = jnp.split(from_state, 3, axis=-1)
  update = jax.nn.sigmoid(update_x + update_h)
  new = jnp.tanh(new_x + jax.nn.sigmoid(reset_x + reset_h) * new_h)
  return (1 - update) * new + update * h


class GRU(nn.Module):
  """Unit from an input [..., I] and a state [..., H] to a new state."""

  @nn.compact
  def __call__(self, x: Array, h: Array) -> Array:
    size = h.shape[-1]
    init = weights.uniform(size**-0.5)

    def product(v: Array, name: str) -> Array:
      return nn.Dense(3 * size, kernel_init=init, bias_init=init, name=name)(v)

    return gated(product(x, 'input'), product(h, 'state'), h)


class DualGRU(nn.Module):
  """Two units side by side, for the mean and the raw scale of a posterior.

  The reference writes them as one unit of block-diagonal kernels, all drawn from N(0, 1): `ih`,
  `hh` of the gates, `in`, `hn` of the candidate.
  """

  @nn.compact
  def __call__(self, x: tuple[Array, Array], h: tuple[Array, Array]) -> tuple[Array, Array]:
    """Maps inputs and states [..., D] to new states."""
    size = h[0].shape[-1]

    def product(values: tuple[Array, Array], gates: str, new: str) -> list[Array]:
      param = lambda name, *shape: self.param(name, weights.standard_normal, shape)
      gate_bias = jnp.split(param(f'bias_{gates}', 4 * size), 2)
      new_bias = jnp.split(param(f'bias_{new}', 2 * size), 2)
      products = []
      for i, v in enumerate(values):
        kernels = param(f'{gates}_{i + 1}', size, 2 * size), param(f'{new}_{i + 1}', size, size)
        bias = jnp.concatenate([gate_bias[i], new_bias[i]])
        products.append(v @ jnp.concatenate(kernels, axis=-1) + bias)
      return products

    products = zip(product(x, 'ih', 'in'), product(h, 'hh', 'hn'), h, strict=True)
    return tuple(gated(*parts) for parts in products)
