"""Grids of pictures, and PNG files."""

import math
import os
from typing import Any

import numpy as np
from PIL import Image

from hvae_tpu.storage import buckets
from hvae_tpu.storage.files import replacing


def save_png(path: str | os.PathLike, picture: np.ndarray) -> None:
  """Writes a uint8 picture [H, W, C], C = 1, 3 or 4, or [H, W]; folders are made as needed.

  The file appears under its name only when it is complete.
  """
  path = buckets.as_path(path)
  picture = np.asarray(picture)
  picture = checked(picture[..., None] if picture.ndim == 2 else picture, str(path), ndims=(3,))
  with replacing(path) as partial:
    to_pillow(picture).save(partial, format='PNG')


def grid(images: np.ndarray) -> np.ndarray:
  """Tiles uint8 images without a border: [R, N, H, W, C] -> [R * H, N * W, C].

  R is the number of rows, of N images each. [N, H, W, C] is a single row; of several leading axes,
  all but the last one count rows.
  """
  images = np.asarray(images)
  if images.ndim < 4 or images.dtype != np.uint8:
    raise ValueError(f'expected uint8 images [..., N, H, W, C], found {_described(images)}')
  num, height, width, channels = images.shape[-4:]
  images = images.reshape(-1, num, height, width, channels)
  return images.transpose(0, 2, 1, 3, 4).reshape(-1, num * width, channels)


def banded(rows: list[np.ndarray], columns: int) -> np.ndarray:
  """Puts rows of pictures [N, H, W, C] below each other, `columns` side by side, as one picture.

  After so many pictures a new band of rows begins; the last one is filled up with black.
  """
  bands = math.ceil(len(rows[0]) / columns)
  padding = ((0, bands * columns - len(rows[0])), (0, 0), (0, 0), (0, 0))
  parts = [np.pad(row, padding).reshape(bands, columns, *row.shape[1:]) for row in rows]
  return grid(np.stack(parts, axis=1))


def framed_row(pictures: np.ndarray, pad: int = 2) -> np.ndarray:
  """Puts pictures [N, H, W, C] side by side, with `pad` zeros around and between them."""
  count, height, width, channels = pictures.shape
  row = np.zeros((height + 2 * pad, count * (width + pad) + pad, channels), pictures.dtype)
  for i, picture in enumerate(pictures):
    left = pad + i * (width + pad)
    row[pad : pad + height, left : left + width] = picture
  return row


def to_pillow(picture: np.ndarray) -> Image.Image:
  """Returns the Pillow image of uint8 [H, W, C]; a single channel is grey."""
  return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def checked(picture: Any, name: str, ndims: tuple[int, ...]) -> np.ndarray:
  """Returns a picture as an array.

  Raises:
    ValueError: it is not uint8 with a number of axes in `ndims`, and 1, 3 or 4 channels.
  """
  picture = np.asarray(picture)
  if picture.dtype != np.uint8 or picture.ndim not in ndims or picture.shape[-1] not in (1, 3, 4):
    expected = ' or '.join({3: '[H, W, C]', 4: '[N, H, W, C]'}[n] for n in ndims)
    raise ValueError(
      f'picture {name!r}: expected uint8 {expected} with C = 1, 3 or 4, found {_described(picture)}'
    )
  return picture


def _described(array: np.ndarray) -> str:
  return f'{array.dtype} {list(array.shape)}'
