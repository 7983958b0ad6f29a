"""A model of a few parameters, with noise and state of its own, for tests of the trainer."""

import dataclasses

import jax
from jax import Array
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Toy:
  """Linear regression of noisy pixels; `image` [B, 4], uint8. Remembers the mean it has seen."""

  level_names: tuple[str, ...] = ('res01/group00',)

  def init(self, rng: Array, batch: dict[str, Array]):
    params = {'w': jax.random.normal(rng, (4, 3)), 'b': jnp.zeros(3)}
    return params, {'seen': jnp.zeros(4)}

  def loss(self, params, state, batch, *, rng, step, train):
    """Computes the loss; 255s stand for a batch that is not finite, 254s for a huge gradient."""
    x = batch['image'].astype(jnp.float32) / 100
    x = jnp.where(batch['image'] == 255, jnp.nan, jnp.where(batch['image'] == 254, 1e8, x))
    noisy = x + 0.1 * jax.random.normal(rng, x.shape)
    error = jnp.square(noisy @ params['w'] + params['b'] - x[:, :3]).sum(-1)
    state = {'seen': 0.9 * state['seen'] + 0.1 * x.mean(0)}
    return error.mean(), (state, {'error': error, 'clock': step.astype(jnp.float32)})
