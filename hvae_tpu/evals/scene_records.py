"""Arrays by name of a segmented scene, for figures.

Names and shapes are those of EfficientMORL's records; T stages, K slots, E entities:

data/image                 [1, H, W, 3] in [0, 1]
data/true_mask             [1, E, 1, H, W], 0 or 255; entity 0 is the background
outputs/recons             [1, T, H, W, 3]
outputs/pred_mask          [1, T, K, H, W, 1], probabilities
outputs/pred_mask_logits   the same, log-probabilities
outputs/components         [1, T, K, H, W, 3], each slot on white
outputs/attention          [1, T, K, H, W, 1]
"""

from typing import Any

import numpy as np

from hvae_tpu.figures import slot_pictures


def record(
  image: np.ndarray, owners: np.ndarray, entities: int, segments: Any
) -> dict[str, np.ndarray]:
  """Returns the arrays of one scene, float32.

  Args:
    image: uint8 [H, W, 3].
    owners: entity of each pixel, [H, W].
    entities: E.
    segments: `models.protocol.Segments` of the scene, without the axis of the batch.
  """
  masks = np.exp(segments.log_masks)
  arrays = {
    'data/image': image / 255,
    'data/true_mask': 255 * (owners == np.arange(entities)[:, None, None])[:, None],
    'outputs/recons': (masks[..., None] * segments.rgb).sum(1),
    'outputs/pred_mask': masks[..., None],
    'outputs/pred_mask_logits': segments.log_masks[..., None],
    'outputs/components': slot_pictures.on_white(segments.rgb, masks),
    'outputs/attention': segments.attention[..., None],
  }
  return {name: np.asarray(array[None], np.float32) for name, array in arrays.items()}
