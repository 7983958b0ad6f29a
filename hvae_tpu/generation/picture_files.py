"""Picture files of the user, read in the size and the channels of a model."""

from pathlib import Path

import numpy as np
from PIL import Image

from hvae_tpu.errors import UserError


def read(path: str | Path, size: int, channels: int, resize: bool = False) -> np.ndarray:
  """Reads a picture file as uint8 [size, size, channels].

  Args:
    size: side of the model's pictures, in pixels.
    channels: 1 converts the picture to grey, 3 to RGB.
    resize: whether to cut out the central square and resize it; otherwise the size must fit.

  Raises:
    UserError: the file is missing or no picture, or has another size.
  """
  try:
    with Image.open(path) as opened:
      picture = opened.convert({1: 'L', 3: 'RGB'}[channels])
  except (OSError, ValueError, Image.DecompressionBombError) as error:
    raise UserError(f'{path} cannot be read as a picture ({error}); give a PNG or JPEG') from error
  if picture.size != (size, size):
    if not resize:
      width, height = picture.size
      raise UserError(
        f'{path} is {height} x {width}, but the model has pictures of {size} x {size}; cut it to '
        f'that size, or let it be resized (--config.interpolate.resize=true)'
      )
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    box = (left, top, left + side, top + side)
    picture = picture.resize((size, size), Image.Resampling.LANCZOS, box)
  return np.asarray(picture).reshape(size, size, channels)
