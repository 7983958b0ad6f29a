"""Slot Attention (arXiv 2006.15055), the baseline of EfficientMORL: its defaults.

Source: pemami4911/EfficientMORL, its configurations with `model: SlotAttention`.
"""

import ml_collections

from configs.systems import efficient_morl
from hvae_tpu import models


def base() -> ml_collections.ConfigDict:
  """Returns the defaults: those of EfficientMORL, with larger batches and no clipping."""
  config = efficient_morl.base()
  config.model = models.defaults('slot_attention')
  config.optimizer.clip_norm = 0.0
  config.train.batch_size = 64
  config.train.num_steps = 500_001
  config.train.progress_metrics = ('mse', 'grad_norm')
  return config


def debug(config: ml_collections.ConfigDict) -> dict:
  """Returns differences: a network of the same form that trains for seconds on a CPU."""
  return efficient_morl.debug(config) | dict(model=dict(zdim=4, image_decoder='small'))
