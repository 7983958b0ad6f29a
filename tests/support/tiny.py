"""The smallest model of each system with all of its parts, for tests of models and training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.models.cwvae import CWVAE
from hvae_tpu.models.efficient_morl import EfficientMORL
from hvae_tpu.models.efficient_morl.slot_attention import SlotAttention
from hvae_tpu.models.efficient_vdvae import EfficientVDVAE
from hvae_tpu.models.hierarchy import ImageHierarchy
from hvae_tpu.models.nvae import NVAE
from hvae_tpu.models.vdvae import VDVAE


class System(NamedTuple):
  """Facts that the tests of models need about a system.

  Attributes:
    model: tiny; single-channel or colour pictures of its `image_size`.
    decoded: (model, params, state, images, rng, pixel_rng) -> pictures of the inference pass
      itself, uint8, with the noise of `encode(rng)` and of `decode(pixel_rng)`; None without these
      two.
    frames: length of a video; 0 for a model of pictures.
    learning_rate: at which it learns in a few steps, and no layer dies.
  """

  model: Any
  decoded: Callable[..., Array] | None = None
  frames: int = 0
  learning_rate: float = 1e-2


def _decoded(
  model: ImageHierarchy, params: Any, state: Any, images: Array, rng: Array, decode_rng: Array
) -> Array:
  out, _ = model.infer(params, state, images, rng)
  return model.pictures(out, jax.random.split(decode_rng)[1])


SYSTEMS = {
  'vdvae': System(
    VDVAE(
      image_size=8,
      width=8,
      zdim=2,
      num_mixtures=2,
      enc_blocks='8x2,8d8,1x1',
      dec_blocks='1x2,8m1,8x2',
    ),
    _decoded,
  ),
  'efficient_vdvae': System(
    EfficientVDVAE(
      image_size=8,
      input_conv_filters=8,
      up_n_blocks_per_res=(0, 0, 1),
      up_filters=(8,),
      down_strides=(1, 8, 1),
      down_n_blocks_per_res=(1, 0, 0),
      down_filters=(8,),
      down_kernel_size=(1, 3, 3),
      zdim=2,
      num_mixtures=2,
    ),
    _decoded,
  ),
  'cwvae': System(
    CWVAE(
      image_channels=1,
      levels=2,
      tmp_abs_factor=2,
      filters=1,
      enc_dense_layers=2,
      enc_dense_embed_size=16,
      cell_stoch_size=2,
      cell_deter_size=8,
      cell_embed_size=16,  # with fewer, all units of a layer may end up at zero
      dec_stddev=0.4,
      convolutions='products',
    ),
    frames=5,
  ),
  'nvae': System(
    NVAE(
      image_size=8,
      num_channels_enc=4,
      num_channels_dec=4,
      num_preprocess_cells=1,
      num_postprocess_cells=1,
      num_groups_per_scale=3,
      zdim=2,
      num_mixtures=2,
      weight_decay_norm=1e-2,
    ),
    _decoded,
  ),
  'efficient_morl': System(
    EfficientMORL(
      image_size=8,
      num_slots=3,
      zdim=4,
      stochastic_layers=2,
      image_decoder='small',
      log_scale=-1.2039728,  # a deviation of 0.3
      refinement_iters=1,
      refinement_curriculum=((-1, 2), (1000, 1)),  # the first step of a recurrence has no past
      geco_warm_start=1000,
      geco_target=-1.0,
    ),
    learning_rate=1e-3,  # weights begin so small that larger steps put units to rest
  ),
  'slot_attention': System(SlotAttention(image_size=8, num_slots=3, zdim=4)),
}


def images(model: Any, count: int = 4, seed: int = 0) -> np.ndarray:
  """Returns smooth pictures, different from each other: uint8 [count, H, W, C]."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (count, 2, 2, model.image_channels))
  fine = coarse.repeat(model.image_size // 2, 1).repeat(model.image_size // 2, 2)
  return np.clip(fine + rng.integers(-20, 20, fine.shape), 0, 255).astype(np.uint8)


def batch(name: str, count: int = 4) -> dict[str, Array]:
  """Returns a batch for `SYSTEMS[name]`; the frames of a video are independent pictures."""
  model, frames = SYSTEMS[name].model, SYSTEMS[name].frames
  if not frames:
    return {'image': jnp.asarray(images(model, count))}
  stills = images(model, count * frames)
  return {'video': jnp.asarray(stills.reshape(count, frames, *stills.shape[1:]))}
