"""Network of a Clockwork VAE: frames, a stack of recurrent levels on slower and slower clocks.

Level l ticks once every `tmp_abs_factor`**l frames; level 0 is decoded. Levels are run one after
the other from the top, each over all of its ticks.
"""

from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.models.cwvae import frames
from hvae_tpu.models.cwvae.cells import Cell, LevelOutputs, kernel_init
from hvae_tpu.models.cwvae.recurrence import State
from hvae_tpu.nn import distributions


class RolloutState(NamedTuple):
  """State of all levels between two frames.

  Attributes:
    states: states of every level, from the bottom.
    frame: int32 [], number of frames before; it decides the noise. It is a multiple of the frames
      of one tick of the top level.
  """

  states: tuple[State, ...]
  frame: Array


class Net(nn.Module):
  """Encoder, levels and decoder; `config` is the `CWVAE` dataclass."""

  config: Any

  def setup(self):
    c = self.config
    rssm = c.rssm
    init = kernel_init(rssm)
    filters, by_products = c.filters * c.channels_mult, c.convolutions == 'products'
    self.encoder = frames.Encoder(filters, init, rssm.dtype, by_products)
    self.embed = [
      [nn.Dense(n, kernel_init=init, dtype=rssm.dtype) for n in c.dense_sizes]
      for _ in range(c.levels - 1)
    ]
    self.cells = [Cell(rssm) for _ in range(c.levels)]
    self.decoder = frames.Decoder(
      frames.WIDTH * c.channels_mult,
      filters,
      c.image_channels,
      init,
      rssm.dtype,
      by_products,
    )

  def __call__(self, x: Array, rng: Array) -> Array:
    """Computes everything once, to make the parameters."""
    features = self.features(x)
    levels, _ = self.unroll(features, x.shape[1], self.initial_state(len(x)), rng)
    return self.decode(levels[0].output)

  def features(self, x: Array) -> list[Array]:
    """Encodes frames [B, T, H, W, C] for each level l: [B, ceil(T / factor**l), E], bottom first.

    A level sees the sum over the frames of its tick. Missing frames of the last tick count as 0.
    """
    num, length = x.shape[:2]
    x = self.encoder(x.reshape(num * length, *x.shape[2:])).reshape(num, length, -1)
    features = [x]
    for level, layers in enumerate(self.embed, start=1):
      for i, dense in enumerate(layers):
        x = dense(x).astype(jnp.float32)
        x = nn.relu(x) if i < len(layers) - 1 else x
      rate = self.config.tmp_abs_factor**level
      padded = jnp.pad(x, ((0, 0), (0, -length % rate), (0, 0)))
      features.append(padded.reshape(num, -1, rate, x.shape[-1]).sum(2))
    return features

  def initial_state(self, num: int) -> RolloutState:
    """Returns the state before the first frame of `num` videos: all zeros."""
    c = self.config
    zeros = lambda size: jnp.zeros((num, size), jnp.float32)
    state = State(zeros(c.cell_stoch_size), zeros(c.cell_deter_size))
    return RolloutState((state,) * c.levels, jnp.zeros((), jnp.int32))

  def unroll(
    self,
    features: list[Array | None],
    length: int,
    start: RolloutState,
    rng: Array,
    keep: list[Array | None] | None = None,
  ) -> tuple[list[LevelOutputs], RolloutState]:
    """Runs all levels over `length` frames.

    Args:
      features: features of every level from the bottom; a level with None follows its prior.
      length: frames.
      start: state before the first of them.
      rng: the noise depends on it, on the level and on the number of the tick only.
      keep: masks of every level [ticks], see `Cell`; None: nothing is reset.

    Returns:
      The outputs of every level from the bottom, and the state after the last frame.
    """
    c = self.config
    levels, states = [None] * c.levels, [None] * c.levels
    above = None
    for level in reversed(range(c.levels)):
      rate = c.tmp_abs_factor**level
      ticks = start.frame // rate + jnp.arange(-(-length // rate))
      levels[level], states[level] = self.cells[level](
        above,
        c.tmp_abs_factor,
        features[level],
        start.states[level],
        noise(jax.random.fold_in(rng, level), ticks, start.states[level].sample.shape),
        keep[level] if keep else None,
      )
      above = levels[level].output
    return levels, RolloutState(tuple(states), start.frame + length)

  def decode(self, outputs: Array) -> Array:
    """Decodes outputs of level 0 [B, T, D] to means of pixels [B, T, H, W, C], float32."""
    num, length = outputs.shape[:2]
    x = self.decoder(outputs.reshape(num * length, -1))
    activation = {'tanh': jnp.tanh, 'sigmoid': nn.sigmoid, 'identity': lambda v: v}
    return activation[self.config.dec_activation](x).reshape(num, length, *x.shape[1:])


def noise(rng: Array, ticks: Array, shape: tuple[int, ...]) -> Array:
  """Draws standard normal [T, *shape]; the draw of a tick depends on its number, not on T."""
  return jax.vmap(lambda tick: distributions.normal(jax.random.fold_in(rng, tick), shape))(ticks)


def reset_masks(rule: str, factor: int, lengths: list[int]) -> list[np.ndarray]:
  """Returns the factors of the sample before each tick, for every level from the bottom.

  Args:
    rule: 'reference': below the top the mask alternates 0, 1, whatever the factor is; the mask of
      a lower level repeats the whole mask above it. 'clock': 0 where the level above ticks.
    factor: ticks of a level during one of the level above.
    lengths: ticks of every level.

  Returns:
    float32 [ticks] each; all ones at the top.
  """
  top = len(lengths) - 1
  masks = [np.ones(lengths[top], np.float32)]
  for level in reversed(range(top)):
    ticks = np.arange(lengths[level])
    if rule == 'clock':
      mask = ticks % factor != 0
    elif level == top - 1:
      mask = ticks % 2
    else:
      mask = np.resize(masks[0], lengths[level])
    masks.insert(0, mask.astype(np.float32))
  return masks
