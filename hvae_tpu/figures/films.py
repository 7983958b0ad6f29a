"""Films side by side, and GIF files."""

import io
import os

import numpy as np

from hvae_tpu.figures.images import checked, to_pillow
from hvae_tpu.storage import buckets
from hvae_tpu.storage.files import replacing

FPS = 10  # frames per second


def side_by_side(films: np.ndarray) -> np.ndarray:
  """Joins uint8 films [N, T, H, W, C] to one film [T, H, N * W, C]."""
  num, length, height, width, channels = films.shape
  return films.transpose(1, 2, 0, 3, 4).reshape(length, height, num * width, channels)


def save_gif(path: str | os.PathLike, frames: np.ndarray, fps: float = FPS) -> None:
  """Writes uint8 frames [T, H, W, C] as an animation, whole or not at all; makes folders."""
  path = buckets.as_path(os.fspath(path))
  frames = checked(frames, str(path), ndims=(4,))
  with replacing(path) as partial:
    partial.write_bytes(encode_gif(frames, fps))


def encode_gif(frames: np.ndarray, fps: float) -> bytes:
  """Encodes uint8 frames [T, H, W, C], C = 1 or 3, as an endlessly repeating GIF file.

  The format keeps times in 1/100 s and 256 colours a frame. Frames equal to the one before are
  stored as a longer display of it, so the file may hold fewer than T frames.
  """
  first, *rest = [to_pillow(frame) for frame in frames]
  buffer = io.BytesIO()
  duration = round(100 / fps) * 10  # milliseconds
  first.save(buffer, 'GIF', save_all=True, append_images=rest, duration=duration, loop=0)
  return buffer.getvalue()
