"""Slot Attention as EfficientMORL's baseline: every field with its default. Paper: 2006.15055.

Source: pemami4911/EfficientMORL, its configurations with `model: SlotAttention`.
"""

import ml_collections

from configs.systems import efficient_morl


def base() -> ml_collections.ConfigDict:
  """What differs from EfficientMORL: a plain autoencoder, larger batches, no clipping."""
  config = efficient_morl.base()
  config.model = dict(
    name='slot_attention',
    image_size=35,
    image_channels=3,
    num_slots=4,
    zdim=64,
    iterations=3,
    image_decoder='small',  # or iodine, big (96 px only)
    dtype='float32',
    remat='auto',  # of the decoder: none, blocks, convs; auto: blocks on TPU and GPU, none on CPU
  )
  config.optimizer.clip_norm = 0.0
  config.train.batch_size = 64
  config.train.num_steps = 500_001
  config.train.progress_metrics = ('mse', 'grad_norm')
  return config


def debug(config: ml_collections.ConfigDict) -> dict:
  """A network of the same form that trains for seconds on a CPU."""
  found = efficient_morl.debug(config)
  return found | dict(model=dict(zdim=4, image_decoder='small'))
