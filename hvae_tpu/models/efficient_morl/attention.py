"""Attention in which slots compete for pixels (Locatello et al., 2020)."""

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.efficient_morl import weights


class Memory(nn.Module):
  """Layers from features [B, P, 64] to keys and values [B, P, size]."""

  size: int
  scheme: str

  @nn.compact
  def __call__(self, features: Array) -> tuple[Array, Array]:
    def product(name: str) -> Array:
      inputs = features.shape[-1]
      return weights.linear(inputs, self.size, self.scheme, name, use_bias=False)(features)

    return product('to_k'), product('to_v')


class Attention(nn.Module):
  """Attention of slots to pixels; the attention to a pixel is shared by the slots."""

  scheme: str

  @nn.compact
  def __call__(self, slots: Array, keys: Array, values: Array) -> tuple[Array, Array]:
    """Maps slots [B, K, D], keys and values [B, P, D] to updates [B, K, D], attention [B, K, P].

    Attention sums to 1 over the slots. It is raised by 1e-8, so that every slot attends somewhere.
    """
    size = slots.shape[-1]
    q = weights.linear(size, size, self.scheme, 'to_q', use_bias=False)(
      weights.layer_norm('norm_slots')(slots)
    )
    dots = jnp.einsum('bkd,bpd->bkp', q * size**-0.5, keys)
    attention = jax.nn.softmax(dots, axis=1) + 1e-8
    shares = attention / attention.sum(-1, keepdims=True)
    return jnp.einsum('bkp,bpd->bkd', shares, values), attention
