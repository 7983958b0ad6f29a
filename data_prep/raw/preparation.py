"""Preparation of pictures: crop, resize and padding, and the splits and sets made of them."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import hashlib
from typing import Any

import numpy as np
from PIL import Image

from data_prep.core.contents import Contents, Example, Field, Split, make_contents
from data_prep.core.request import About
from data_prep.errors import DataPrepError
from data_prep.raw.collection import Collection

KERNELS = {
  'bilinear': Image.Resampling.BILINEAR,
  'bicubic': Image.Resampling.BICUBIC,
  'nearest': Image.Resampling.NEAREST,
  'lanczos': Image.Resampling.LANCZOS,
}

_SHARD = 2**28  # bytes of pixels in a shard, at most
_COMPRESSED_FROM = 256  # px; smaller pictures are read faster without compression


@dataclasses.dataclass(frozen=True)
class Preparation:
  """Crop, resize and padding of each picture.

  Attributes:
    size: height and width of the result.
    source: height and width that a raw picture must have; None accepts any.
    box: (left, upper, right, lower) to crop first; `centre` is the largest centred square.
    kernel: a key of `KERNELS`; resizing is Pillow's, which antialiases when it shrinks.
    channels: number of channels of the raw picture and the result.
    pad: black pixels to add on each side at the end.
  """

  size: int
  source: tuple[int, int] | None
  box: tuple[int, int, int, int] | str | None = None
  kernel: str = 'bilinear'
  channels: int = 3
  pad: int = 0

  def __call__(self, image: np.ndarray, origin: str) -> np.ndarray:
    """Prepares uint8 [H, W, C]: uint8 [size, size, C]; `origin` names the picture in messages."""
    if image.shape[2] != self.channels or self.source not in (None, image.shape[:2]):
      raise DataPrepError(f'{origin} must be {self._required()}, but is {_times(image.shape)}')
    inner = self.size - 2 * self.pad
    if self.box is not None or image.shape[:2] != (inner, inner):
      image = self._resize(image, inner)
    if self.pad:
      image = np.pad(image, ((self.pad, self.pad), (self.pad, self.pad), (0, 0)))
    return image

  def describe(self) -> str:
    """Describes the preparation for the data card."""
    steps = []
    if self.box == 'centre':
      steps.append('the largest centred square')
    elif self.box:
      left, upper, right, lower = self.box
      steps.append(f'box left {left}, upper {upper}, right {right}, lower {lower}')
    inner = self.size - 2 * self.pad
    if self.source != (inner, inner) or self.box:
      steps.append(f'resized to {inner}x{inner} by Pillow, {self.kernel}, antialiased')
    if self.pad:
      steps.append(f'padded with zeros by {self.pad} px on each side')
    return '; '.join(steps) or 'none'

  def _resize(self, image: np.ndarray, size: int) -> np.ndarray:
    picture = Image.fromarray(image[..., 0] if self.channels == 1 else image)
    box = _centre(picture.size) if self.box == 'centre' else self.box
    picture = picture.crop(box) if box else picture
    if picture.size != (size, size):
      picture = picture.resize((size, size), KERNELS[self.kernel])
    return np.asarray(picture).reshape(size, size, self.channels)

  def _required(self) -> str:
    if self.source is None:
      return f'of {self.channels} channels'
    return f'{_times((*self.source, self.channels))} (height, width, channels)'


@dataclasses.dataclass(frozen=True)
class PictureExamples:
  """Examples of prepared pictures.

  Attributes:
    pictures: the raw pictures.
    order: indices of `pictures` in record order.
    prepare: preparation of each picture.
    more: further fields, arrays in record order.
    md5: hex MD5 of the raw pixels in record order; a picture that differs is refused.
  """

  pictures: Collection
  order: np.ndarray
  prepare: Preparation
  more: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  md5: tuple[str, ...] = ()

  def __call__(self, start: int, stop: int) -> Iterator[Example]:
    for record in range(start, stop):
      index = int(self.order[record])
      image = self.pictures.read(index)
      origin = f'picture {self.pictures.names[index]}'
      if self.md5 and hashlib.md5(image.tobytes()).hexdigest() != self.md5[record]:
        raise DataPrepError(f'{origin} does not have the pixels that the metadata names by MD5')
      more = {name: array[record] for name, array in self.more.items()}
      yield {'image': self.prepare(image, origin), **more}


def split_of_pictures(
  pictures: Collection,
  prepare: Preparation,
  order: Sequence[int] | np.ndarray | None = None,
  md5: tuple[str, ...] = (),
  **more: np.ndarray,
) -> Split:
  """Makes a split of all `pictures`, or of those in `order`; see `PictureExamples`."""
  order = np.arange(len(pictures.names)) if order is None else np.asarray(order)
  return Split(len(order), PictureExamples(pictures, order, prepare, more, md5))


def picture_set(
  about: About,
  prepare: Preparation,
  *,
  preprocessing: str = '',
  more_fields: Mapping[str, Field] | None = None,
  **facts: Any,
) -> Contents:
  """Assembles the contents of a data set of still pictures.

  Args:
    about: as in `make_contents`.
    prepare: preparation of the pictures; it gives the shape of the field `image`.
    preprocessing: by default the description of `prepare`.
    more_fields: fields beside `image`.
    facts: other arguments of `make_contents`.
  """
  shape = (prepare.size, prepare.size, prepare.channels)
  return make_contents(
    about,
    fields={'image': Field('uint8', shape), **(more_fields or {})},
    preprocessing=preprocessing or prepare.describe(),
    records_per_shard=min(16384, _SHARD // int(np.prod(shape))),
    compression='zstd' if prepare.size >= _COMPRESSED_FROM else 'uncompressed',
    **facts,
  )


def _centre(size: tuple[int, int]) -> tuple[int, int, int, int]:
  """Returns the box of the largest centred square."""
  width, height = size
  side = min(size)
  left, upper = (width - side) // 2, (height - side) // 2
  return left, upper, left + side, upper + side


def _times(shape: Sequence[int]) -> str:
  return 'x'.join(map(str, shape))
