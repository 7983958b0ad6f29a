"""Slot Attention (Locatello et al., arXiv 2006.15055), as EfficientMORL's baseline has it.

A plain autoencoder: slots have no distribution but that of their first values.
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
from hvae_tpu.models.efficient_morl.attention import Attention, Memory, crowding
from hvae_tpu.models.efficient_morl.decoders import Decoder
from hvae_tpu.models.efficient_morl.encoder import Encoder
from hvae_tpu.models.efficient_morl.gaussians import Gaussian
from hvae_tpu.models.efficient_morl.objective import Canvas
from hvae_tpu.models.efficient_morl.recurrence import GRU
from hvae_tpu.models.protocol import Batch, Metrics, Params, Segments, State
from hvae_tpu.nn import distributions, layers
from hvae_tpu.settings import setting

HIDDEN = 128  # units behind the recurrence


class Iteration(nn.Module):
  """Slots [B, K, D] read from the pixels, and are updated; the same weights every time."""

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
  """Pictures [B, H, W, 3] in [-1, 1] and noise [B, K, D] -> slots, attention [B, K, P]."""

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


class Seen(NamedTuple):
  """What a pass gives: `slots` [B, K, D], `attention` [B, K, P], what they look like."""

  slots: Array
  attention: Array
  painted: Canvas


@dataclasses.dataclass(frozen=True)
class SlotAttention:
  """Hyper-parameters, and the interface that the trainer and the evaluations use."""

  image_size: int = 35  # pictures are square
  image_channels: int = 3
  num_slots: int = 4
  zdim: int = 64  # of a slot
  iterations: int = 3
  image_decoder: str = setting('small', choices=decoders.DECODERS)
  dtype: str = setting('float32', choices=('float32', 'bfloat16'))  # of convolutions
  remat: str = setting('none', choices=layers.REMAT, changeable=True)  # of the decoder

  def __post_init__(self):
    settings.check(self, 'config.model')
    errors = decoders.problems(self) + [
      f'model.{name}={getattr(self, name)} must be at least 1'
      for name in ('num_slots', 'zdim', 'iterations')
      if getattr(self, name) < 1
    ]
    if errors:
      raise UserError('; '.join('config.' + error for error in errors))

  level_names = ()

  @property
  def _networks(self) -> tuple[Slots, Decoder]:
    dtype = jnp.dtype(self.dtype)
    return Slots(self.iterations, dtype), Decoder(self.image_decoder, self.image_size, dtype)

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    decoders.check_images(self, batch)
    slots, decoder = self._networks
    slots_rng, decoder_rng = jax.random.split(rng)
    z, x = jnp.zeros((1, self.num_slots, self.zdim)), jnp.zeros((1, *batch['image'].shape[1:]))
    params = {
      'slots': slots.init(slots_rng, x, z)['params'],
      'decoder': decoder.init(decoder_rng, z)['params'],
    }
    return params, {}

  def loss(
    self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array, train: bool
  ) -> tuple[Array, tuple[State, Metrics]]:
    """Squared error summed over a picture in [0, 1]. No schedule: `step` is not used."""
    painted = self._infer(params, batch, rng).painted
    error = jnp.square(batch['image'].astype(jnp.float32) / 255 - painted.mean)
    squared = error.sum((1, 2, 3))
    metrics = {'squared_error': squared, 'mse': error.mean((1, 2, 3))}
    return squared.mean(), (state, metrics)

  def segment(self, params: Params, state: State, batch: Batch, rng: Array) -> Segments:
    """One stage: the last iteration."""
    found, side = self._infer(params, batch, rng), self.image_size
    attention = found.attention.reshape(*found.attention.shape[:2], side, side)
    parts = (found.painted.rgb, found.painted.log_masks, attention, found.slots, found.slots)
    return Segments(*(part[:, None] for part in parts))

  def paint(self, params: Params, slots: Array) -> tuple[Array, Array]:
    return decoders.painted(self._networks[1], params, slots)

  def warnings(self, card: dict[str, Any]) -> list[str]:
    return crowding(self.num_slots, card)

  def _infer(self, params: Params, batch: Batch, rng: Array) -> Seen:
    x = batch['image'].astype(jnp.float32) / 255 * 2 - 1
    noise = distributions.normal(rng, (len(x), self.num_slots, self.zdim))
    slots, attention = self._networks[0].apply({'params': params['slots']}, x, noise)
    canvas = functools.partial(objective.paint, self._networks[1])
    painted = layers.rematerialised(canvas, self.remat)(params, slots)
    return Seen(slots, attention, painted)
