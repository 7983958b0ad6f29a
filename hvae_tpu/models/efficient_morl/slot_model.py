"""Fields and methods that both models of slots share."""

import dataclasses
from typing import Any

from jax import Array
import jax.numpy as jnp

from hvae_tpu.errors import UserError
from hvae_tpu.models import protocol
from hvae_tpu.models.efficient_morl import decoders, objective
from hvae_tpu.models.efficient_morl.decoders import Decoder
from hvae_tpu.models.protocol import Batch, Params
from hvae_tpu.nn import layers
from hvae_tpu.settings import setting


@dataclasses.dataclass(frozen=True)
class SlotModel:
  """Hyper-parameters of pictures, slots and decoder; subclasses are the models."""

  image_size: int = setting(35, least=1)  # pixels a side of a picture
  image_channels: int = setting(3, least=1)
  num_slots: int = setting(4, least=1)
  zdim: int = setting(64, least=1)  # dimensions of a slot
  image_decoder: str = setting('iodine', choices=decoders.DECODERS)  # big: 96 px only
  dtype: str = setting('float32', choices=('float32', 'bfloat16'))  # dtype of convolutions
  # recomputation of the decoder
  remat: str = setting('none', choices=layers.REMAT, changeable=True)

  @property
  def decoder(self) -> Decoder:
    """Network that paints slots."""
    return Decoder(self.image_decoder, self.image_size, jnp.dtype(self.dtype))

  def picture_problems(self) -> list[str]:
    """Returns the faults of pictures and decoder together, one sentence each."""
    errors = []
    if self.image_channels != 3:
      errors.append(f'model.image_channels={self.image_channels} must be 3: slots paint colours')
    if self.image_decoder == 'big' and self.image_size != decoders.BIG_SIDE:
      errors.append(
        f"model.image_decoder='big' makes pictures of {decoders.BIG_SIDE} px, but model.image_size="
        f"{self.image_size}; use 'small' or 'iodine'"
      )
    return errors

  def blank_inputs(self, batch: Batch) -> tuple[Array, Array]:
    """Returns one picture [1, H, W, 3] and its slots [1, K, D], zeros, to make parameters with.

    Raises:
      UserError: the pictures of the batch are not square, or not of the model's size.
    """
    height, width, _ = batch['image'].shape[1:]
    if height != width:
      raise UserError(
        f'the data has images of {height}x{width} px, but slots need square ones; add '
        f"'centre_crop:{min(height, width)}' to config.data.train_transforms and eval_transforms"
      )
    protocol.check_images(self, batch)
    picture = jnp.zeros((1, *batch['image'].shape[1:]))
    return picture, jnp.zeros((1, self.num_slots, self.zdim))

  def scale(self, image: Array) -> Array:
    """Scales uint8 to [0, 1]."""
    return image.astype(jnp.float32) / 255

  def paint(self, params: Params, slots: Array) -> tuple[Array, Array]:
    """Paints every slot [..., D] by itself: colours [..., H, W, 3], logits of masks [..., H, W]."""
    return objective.paint_slots(self.decoder, params, slots)

  def warnings(self, card: dict[str, Any]) -> list[str]:
    """Returns a sentence if pictures of a data set may hold more entities than there are slots."""
    entities = card.get('details', {}).get('entities', 0)
    if entities <= self.num_slots:
      return []
    return [
      f'pictures of {card["name"]} hold up to {entities} entities, the background among them, but '
      f'config.model.num_slots={self.num_slots}: some will have to share a slot'
    ]
