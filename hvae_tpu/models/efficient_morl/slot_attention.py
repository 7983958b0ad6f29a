"""Slot Attention (Locatello et al., arXiv 2006.15055), as EfficientMORL's baseline has it.

It is a plain autoencoder: only the first values of slots are random.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu import settings
from hvae_tpu.errors import UserError
from hvae_tpu.models.efficient_morl import decoders, objective, weights
from hvae_tpu.models.efficient_morl.attention import Attention, Memory
from hvae_tpu.models.efficient_morl.encoder import Encoder
from hvae_tpu.models.efficient_morl.gaussians import Gaussian
from hvae_tpu.models.efficient_morl.objective import Canvas
from hvae_tpu.models.efficient_morl.recurrence import GRU
from hvae_tpu.models.efficient_morl.slot_model import SlotModel
from hvae_tpu.models.protocol import Batch, Metrics, Params, Segments, State
from hvae_tpu.nn import distributions, layers
from hvae_tpu.settings import setting

HIDDEN = 128  # units of the layer after the recurrence


class Iteration(nn.Module):
  """One update of slots [B, K, D] from the pixels; all iterations share their weights."""

  @nn.compact
  def __call__(self, slots: Array, keys: Array, values: Array) -> tuple[Array, Array]:
    """-> slots, attention [B, K, P]."""
    size = slots.shape[-1]
    updates, attention = Attention('torch', name='attention')(slots, keys, values)
    slots = GRU(name='gru')(updates, slots)
    h = weights.layer_norm('norm_pre_ff')(slots)
    h = nn.relu(weights.linear(size, HIDDEN, 'torch', 'mlp_0')(h))
    return slots + weights.linear(HIDDEN, size, 'torch', 'mlp_1')(h), attention


class Slots(nn.Module):
  """Network from pictures [B, H, W, 3] in [-1, 1] and noise [B, K, D] to slots.

  It also returns the attention [B, K, P] of the last iteration.
  """

  iterations: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Array, noise: Array) -> tuple[Array, Array]:
    size = noise.shape[-1]
    first = self.param('init_slots', weights.start, (2 * size,))
    slots = Gaussian(*jnp.split(first, 2)).sample(noise)
    features = Encoder('torch', self.dtype, name='encoder')(x)
    keys, values = Memory(size, 'torch', name='memory')(features)
    iteration = Iteration(name='iteration')
    for _ in range(self.iterations):
      slots, attention = iteration(slots, keys, values)
    return slots, attention


class SlotPictures(NamedTuple):
  """Results of a pass: `slots` [B, K, D], their `attention` [B, K, P] and their pictures."""

  slots: Array
  attention: Array
  canvas: Canvas


@dataclasses.dataclass(frozen=True)
class SlotAttention(SlotModel):
  """Hyper-parameters and methods of Slot Attention."""

  image_decoder: str = setting('small', choices=decoders.DECODERS)  # big: 96 px only
  iterations: int = setting(3, least=1)

  def __post_init__(self):
    settings.check(self, 'config.model')
    if errors := self.picture_problems():
      raise UserError('; '.join('config.' + error for error in errors))

  level_names = ()

  @property
  def _slots(self) -> Slots:
    return Slots(self.iterations, jnp.dtype(self.dtype))

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    x, z = self.blank_inputs(batch)
    slots_rng, decoder_rng = jax.random.split(rng)
    params = {
      'slots': self._slots.init(slots_rng, x, z)['params'],
      'decoder': self.decoder.init(decoder_rng, z)['params'],
    }
    return params, {}

  def loss(
    self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array, train: bool
  ) -> tuple[Array, tuple[State, Metrics]]:
    """Returns the squared error, summed over a picture in [0, 1]; `step` is not used."""
    canvas = self._infer(params, batch, rng).canvas
    error = jnp.square(self.scale(batch['image']) - canvas.mean)
    squared = error.sum((1, 2, 3))
    metrics = {'squared_error': squared, 'mse': error.mean((1, 2, 3))}
    return squared.mean(), (state, metrics)

  def segment(self, params: Params, state: State, batch: Batch, rng: Array) -> Segments:
    """Returns the slots of pictures at one stage, the last iteration."""
    result, side = self._infer(params, batch, rng), self.image_size
    attention = result.attention.reshape(*result.attention.shape[:2], side, side)
    parts = (*result.canvas, attention, result.slots, result.slots)
    return Segments(*(part[:, None] for part in parts))

  def _infer(self, params: Params, batch: Batch, rng: Array) -> SlotPictures:
    x = self.scale(batch['image']) * 2 - 1
    noise = distributions.normal(rng, (len(x), self.num_slots, self.zdim))
    slots, attention = self._slots.apply({'params': params['slots']}, x, noise)
    paint = functools.partial(objective.paint, self.decoder)
    return SlotPictures(slots, attention, layers.rematerialised(paint, self.remat)(params, slots))
