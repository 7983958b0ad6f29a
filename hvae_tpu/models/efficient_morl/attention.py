"""Slots that compete for pixels (Locatello et al., 2020): what both slot models share."""

from typing import Any

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.efficient_morl import weights


class Memory(nn.Module):
  """Features [B, P, 64] -> keys and values [B, P, size]."""

  size: int
  scheme: str

  @nn.compact
  def __call__(self, features: Array) -> tuple[Array, Array]:
    def product(name: str) -> Array:
      inputs = features.shape[-1]
      return weights.linear(inputs, self.size, self.scheme, name, use_bias=False)(features)

    return product('to_k'), product('to_v')


class Attention(nn.Module):
  """What each slot reads from the pixels, which are shared out among the slots."""

  scheme: str

  @nn.compact
  def __call__(self, slots: Array, keys: Array, values: Array) -> tuple[Array, Array]:
    """slots [B, K, D], keys and values [B, P, D] -> updates [B, K, D], attention [B, K, P].

    Attention sums to 1 over the slots, and is raised by 1e-8 so that no slot is without a pixel.
    """
    size = slots.shape[-1]
    q = weights.linear(size, size, self.scheme, 'to_q', use_bias=False)(
      weights.layer_norm('norm_slots')(slots)
    )
    dots = jnp.einsum('bkd,bpd->bkp', q * size**-0.5, keys)
    attention = jax.nn.softmax(dots, axis=1) + 1e-8
    shares = attention / attention.sum(-1, keepdims=True)
    return jnp.einsum('bkp,bpd->bkd', shares, values), attention


def crowding(num_slots: int, card: dict[str, Any]) -> list[str]:
  """A sentence if pictures of a data set may hold more entities than there are slots."""
  entities = card.get('details', {}).get('entities', 0)
  if entities <= num_slots:
    return []
  return [
    f'pictures of {card["name"]} hold up to {entities} entities, the background among them, but '
    f'config.model.num_slots={num_slots}: some will have to share a slot'
  ]
