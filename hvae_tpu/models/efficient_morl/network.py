"""Networks of EfficientMORL: a bottom-up hierarchy over slots, its prior, the refinement.

B pictures, K slots of D dimensions, L layers, P pixels. Weights are shared by slots and by layers.
"""

from typing import Any, NamedTuple

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.efficient_morl import weights
from hvae_tpu.models.efficient_morl.attention import Attention, Memory
from hvae_tpu.models.efficient_morl.encoder import Encoder
from hvae_tpu.models.efficient_morl.gaussians import Gaussian
from hvae_tpu.models.efficient_morl.recurrence import GRU, DualGRU

HIDDEN = 128  # units of the prior and of the refinement


class BottomUp(NamedTuple):
  """Results of the hierarchy.

  Attributes:
    start: the learned Gaussian that the first slots are drawn from, [B, K, D].
    posteriors: posteriors of the layers, bottom to top, each [B, K, D].
    slots: a draw of each posterior, [B, K, D]; queries of the next layer.
    attention: attention of the layers, each [B, K, P].
  """

  start: Gaussian
  posteriors: tuple[Gaussian, ...]
  slots: tuple[Array, ...]
  attention: tuple[Array, ...]


class SlotLayer(nn.Module):
  """One layer: slots attend to the pixels, and a recurrence updates their posterior."""

  dual: bool

  @nn.compact
  def __call__(
    self, slots: Array, last: Gaussian, keys: Array, values: Array
  ) -> tuple[Gaussian, Array]:
    """Maps slots [B, K, D] drawn from `last` to the next posterior and attention [B, K, P]."""
    size = slots.shape[-1]
    updates, attention = Attention('xavier', name='attention')(slots, keys, values)
    if self.dual:
      mean, raw = DualGRU(name='gru')((updates, updates), (last.mean, last.raw))
    else:
      updates = weights.linear(size, 2 * size, 'xavier', 'project_update')(updates)
      mean, raw = jnp.split(GRU(name='gru')(updates, jnp.concatenate(last, axis=-1)), 2, axis=-1)
    return Gaussian(self._deepened('mu', mean), self._deepened('softplus', raw)), attention

  def _deepened(self, name: str, x: Array) -> Array:
    size = x.shape[-1]
    h = weights.layer_norm(f'norm_{name}_pre_ff')(x)
    h = nn.relu(weights.linear(size, 2 * size, 'xavier', f'mlp_{name}_0')(h))
    return x + weights.linear(2 * size, size, 'xavier', f'mlp_{name}_1')(h)


class Hierarchy(nn.Module):
  """Network from pictures to the posteriors of all layers.

  Args:
    x: [B, H, W, 3] in [-1, 1].
    noise: [1 + layers, B, K, D], standard normal: for the first slots, and for each layer.
  """

  dual: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: Array, noise: Array) -> BottomUp:
    shape = noise.shape[1:]
    first = self.param('init_posterior', weights.start, (2 * shape[-1],))
    mean, raw = jnp.split(first, 2)
    start = last = Gaussian(jnp.broadcast_to(mean, shape), jnp.broadcast_to(raw, shape))
    features = Encoder('xavier', self.dtype, name='encoder')(x)
    keys, values = Memory(shape[-1], 'xavier', name='memory')(features)
    layer = SlotLayer(self.dual, name='layer')
    posteriors, draws, attentions = [], [], []
    slots = start.sample(noise[0])
    for eps in noise[1:]:
      last, attention = layer(slots, last, keys, values)
      slots = last.sample(eps)
      posteriors.append(last)
      draws.append(slots)
      attentions.append(attention)
    return BottomUp(start, tuple(posteriors), tuple(draws), tuple(attentions))


class Prior(nn.Module):
  """Network from the slots of one layer to Gaussians of the next layer, each slot by itself."""

  @nn.compact
  def __call__(self, z: Array) -> Gaussian:
    size = z.shape[-1]
    h = nn.elu(weights.linear(size, HIDDEN, 'xavier', 'z_linear')(z))
    head = lambda name: weights.linear(HIDDEN, size, 'xavier', name)(h)
    return Gaussian(head('z_mu'), head('z_softplus'))


class Refinement(nn.Module):
  """Network from a posterior and the gradient of its loss to a step of the posterior.

  Args:
    posterior: [B, K, D].
    gradient: gradient of the last iteration's loss by the posterior; it counts as a constant.
    h: [B, K, D], state of the recurrence, zeros at first.

  Returns:
    The step, as a Gaussian to add; and the new state.
  """

  @nn.compact
  def __call__(self, posterior: Gaussian, gradient: Gaussian, h: Array) -> tuple[Gaussian, Array]:
    size = h.shape[-1]
    inputs = jnp.concatenate([*posterior, *(normalised(half) for half in gradient)], axis=-1)
    e = nn.elu(weights.linear(4 * size, HIDDEN, 'xavier', 'encoding_0')(inputs))
    e = weights.linear(HIDDEN, size, 'xavier', 'encoding_1')(e)
    h = GRU(name='recurrence')(e, h)
    head = lambda name: weights.linear(size, size, 'xavier', name)(h)
    return Gaussian(head('loc'), head('softplus')), h


def normalised(x: Array) -> Array:
  """Normalises to mean 0 and variance 1 over the last axis; values far below 3e-3 stay small."""
  centred = x - x.mean(-1, keepdims=True)
  return centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)
