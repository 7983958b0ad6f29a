"""From an opened container to the examples of a split: which pictures, in which order, cut how."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import hashlib
from typing import Any

import numpy as np
from PIL import Image

from data_prep.core.contents import CardInfo, Contents, Example, Field, Split, View
from data_prep.core.request import About
from data_prep.errors import DataPrepError
from data_prep.raw.pictures import Pictures

KERNELS = {
  'bilinear': Image.Resampling.BILINEAR,
  'bicubic': Image.Resampling.BICUBIC,
  'nearest': Image.Resampling.NEAREST,
  'lanczos': Image.Resampling.LANCZOS,
}

_SHARD = 2**28  # bytes of pixels in a shard, at most
_COMPRESSED_FROM = 256  # px; below, plain bytes gain more in reading than small files on disk


@dataclasses.dataclass(frozen=True)
class Preparation:
  """What happens to each picture.

  Attributes:
    size: of the result, height and width.
    source: height and width that a raw picture must have; None takes any.
    box: (left, upper, right, lower) to cut out first; `centre` is the largest centred square.
    kernel: a key of `KERNELS`. Pillow's, so it averages when it shrinks.
    pad: black pixels to add on each side in the end.
  """

  size: int
  source: tuple[int, int] | None
  box: tuple[int, int, int, int] | str | None = None
  kernel: str = 'bilinear'
  channels: int = 3
  pad: int = 0

  def __call__(self, image: np.ndarray, origin: str) -> np.ndarray:
    """uint8 [H, W, C] -> uint8 [size, size, C]; `origin` names the picture in messages."""
    if image.shape[2] != self.channels or self.source not in (None, image.shape[:2]):
      raise DataPrepError(f'{origin} must be {self._wanted()}, but is {_times(image.shape)}')
    inner = self.size - 2 * self.pad
    if self.box is not None or image.shape[:2] != (inner, inner):
      image = self._resize(image, inner)
    if self.pad:
      image = np.pad(image, ((self.pad, self.pad), (self.pad, self.pad), (0, 0)))
    return image

  def describe(self) -> str:
    """The preparation in words, for the data card."""
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

  def _wanted(self) -> str:
    if self.source is None:
      return f'of {self.channels} channels'
    return f'{_times((*self.source, self.channels))} (height, width, channels)'


@dataclasses.dataclass(frozen=True)
class PictureExamples:
  """`pictures` in the order of `order`, prepared; more fields from arrays in that same order.

  `md5` are the hex MD5s of the raw pixels, in that order too; a picture that differs is refused.
  """

  pictures: Pictures
  order: np.ndarray
  prepare: Preparation
  more: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  md5: tuple[str, ...] = ()

  def __call__(self, start: int, stop: int) -> Iterator[Example]:
    for place in range(start, stop):
      index = int(self.order[place])
      image = self.pictures.read(index)
      origin = f'picture {self.pictures.names[index]}'
      if self.md5 and hashlib.md5(image.tobytes()).hexdigest() != self.md5[place]:
        raise DataPrepError(f'{origin} does not have the pixels that the metadata names by MD5')
      more = {name: array[place] for name, array in self.more.items()}
      yield {'image': self.prepare(image, origin), **more}


def split_of_pictures(
  pictures: Pictures,
  prepare: Preparation,
  order: Sequence[int] | np.ndarray | None = None,
  md5: tuple[str, ...] = (),
  **more: np.ndarray,
) -> Split:
  """A split of `pictures`, all in their order, or those of `order`; see `PictureExamples`."""
  order = np.arange(len(pictures.names)) if order is None else np.asarray(order)
  return Split(len(order), PictureExamples(pictures, order, prepare, more, md5))


def picture_set(
  about: About,
  prepare: Preparation,
  *,
  source: str,
  variant: str,
  splits: Mapping[str, Split],
  views: Mapping[str, View],
  files: Mapping[str, str],
  checks: tuple[str, ...],
  version: int = 1,
  preprocessing: str = '',
  packages: Mapping[str, str] | None = None,
  more_fields: Mapping[str, Field] | None = None,
  details: Mapping[str, Any] | None = None,
) -> Contents:
  """What a builder of still pictures hands over; the arguments are those of `CardInfo`."""
  shape = (prepare.size, prepare.size, prepare.channels)
  return Contents(
    fields={'image': Field('uint8', shape), **(more_fields or {})},
    splits=splits,
    views=views,
    info=CardInfo(
      version=version,
      source=source,
      packages=packages or {},
      files=files,
      preprocessing=preprocessing or prepare.describe(),
      licence=about.licence,
      samples_publishable=about.samples_publishable,
      variant=variant,
      details=details or {},
    ),
    checks=(*checks, f'[ok] variant: {variant}'),
    records_per_shard=min(16384, _SHARD // int(np.prod(shape))),
    compression='zstd' if prepare.size >= _COMPRESSED_FROM else 'uncompressed',
  )


def _centre(size: tuple[int, int]) -> tuple[int, int, int, int]:
  width, height = size
  side = min(size)
  left, upper = (width - side) // 2, (height - side) // 2
  return left, upper, left + side, upper + side


def _times(shape: Sequence[int]) -> str:
  return 'x'.join(map(str, shape))
