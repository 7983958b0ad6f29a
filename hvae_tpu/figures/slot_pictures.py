"""Pictures of the attention and the paintings of slots."""

import colorsys

import numpy as np


def colours(count: int) -> np.ndarray:
  """Returns a colour for each slot, float32 [count, 3]: hues at equal distances."""
  hues = [colorsys.hsv_to_rgb(i / count, 1.0, 1.0) for i in range(count)]
  return np.array(hues, np.float32)


def coloured(masks: np.ndarray) -> np.ndarray:
  """Mixes the colours of slots by their masks [..., K, H, W]: [..., H, W, 3] in [0, 1]."""
  mixed = np.einsum('...khw,kc->...hwc', masks, colours(masks.shape[-3]))
  return np.clip(mixed, 0, 1)


def on_white(rgb: np.ndarray, masks: np.ndarray) -> np.ndarray:
  """Fades slots [..., K, H, W, 3] to white where their masks [..., K, H, W] are small."""
  return masks[..., None] * rgb + (1 - masks[..., None])


def rows(image: np.ndarray, rgb: np.ndarray, masks: np.ndarray) -> np.ndarray:
  """Draws a row for each scene: picture, reconstruction, coloured masks, slots.

  Args:
    image: uint8 [N, H, W, 3].
    rgb: float [N, K, H, W, 3] in [0, 1].
    masks: float [N, K, H, W].

  Returns:
    uint8 [N, 3 + K, H, W, 3].
  """
  whole = (masks[..., None] * rgb).sum(1)
  panels = [whole[:, None], coloured(masks)[:, None], on_white(rgb, masks)]
  panels = np.round(255 * np.clip(np.concatenate(panels, axis=1), 0, 1)).astype(np.uint8)
  return np.concatenate([image[:, None], panels], axis=1)
