"""Still pictures in whatever container, as one thing: names, and an array for each index.

Everything opens lazily and pickles small, so that worker processes can read side by side.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import functools
import io
import pathlib
from typing import Protocol
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from data_prep.errors import DataPrepError
from data_prep.raw import archives, recognise, tfrecords

_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.gif', '.tif', '.tiff', '.ppm')


class Pictures(Protocol):
  """A sequence of pictures.

  Attributes:
    names: of the pictures, where the container has names; else their numbers as strings.
    kind: the container, in words.
  """

  names: Sequence[str]
  kind: str

  def read(self, index: int) -> np.ndarray:
    """One picture, uint8 [H, W, C]; DataPrepError if it is damaged."""


# Of Pillow. Others are left out: EPS, for one, would start another program.
FORMATS = ('PNG', 'JPEG', 'BMP', 'WEBP', 'GIF', 'TIFF', 'PPM')


@dataclasses.dataclass(frozen=True)
class Numbers(Sequence):
  """'0', '1', ... as names, without holding them."""

  count: int

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, index: int) -> str:
    return str(range(self.count)[index])


@dataclasses.dataclass(frozen=True)
class EncodedPictures:
  """Picture files inside a folder, zip or tar; `indices` are places in `archive.names`."""

  archive: archives.Archive
  indices: tuple[int, ...]
  mode: str = 'RGB'  # of Pillow: pictures of another mode are refused, or converted if so asked
  convert: bool = False
  format: str = ''  # of Pillow: pictures of another format are refused; '' takes any

  @property
  def kind(self) -> str:
    return self.archive.kind

  @functools.cached_property
  def names(self) -> tuple[str, ...]:
    return tuple(self.archive.names[index] for index in self.indices)

  def read(self, index: int) -> np.ndarray:
    origin = f'{self.archive.path}: {self.names[index]}'
    data = self.archive.read(self.indices[index])
    if self.format:
      with _opened(data, origin) as image:
        if image.format != self.format:
          raise DataPrepError(
            f'{origin} is a {image.format} file, but the originals are {self.format} files: a '
            're-compressed copy, whose likelihoods are not comparable'
          )
    return decode(data, origin, self.mode, self.convert)


@dataclasses.dataclass(frozen=True)
class NpyPictures:
  """An npy file uint8 [N, H, W, C], read through a memory map."""

  path: pathlib.Path
  count: int
  kind: str = 'npy'

  @property
  def names(self) -> Sequence[str]:
    return Numbers(self.count)

  def read(self, index: int) -> np.ndarray:
    return np.array(_memory_map(self.path)[index])


@dataclasses.dataclass(frozen=True)
class ArrayPictures:
  """Pictures held in memory, uint8 [N, H, W, C]."""

  images: np.ndarray
  kind: str

  @property
  def names(self) -> Sequence[str]:
    return Numbers(len(self.images))

  def read(self, index: int) -> np.ndarray:
    return self.images[index]


@dataclasses.dataclass(frozen=True)
class RecordPictures:
  """Pictures in TFRecords, raw (`data` and `shape`) or encoded (`image`)."""

  files: tuple[tfrecords.RecordFile, ...]
  kind: str
  mode: str = 'RGB'  # of Pillow, for encoded pictures; others are converted

  @functools.cached_property
  def names(self) -> Sequence[str]:
    return Numbers(sum(len(file.offsets) for file in self.files))

  @functools.cached_property
  def _stops(self) -> np.ndarray:
    return np.cumsum([len(file.offsets) for file in self.files])

  def example(self, index: int) -> dict[str, tfrecords.Value]:
    """The parsed record; DataPrepError if it is damaged."""
    number = int(np.searchsorted(self._stops, index, side='right'))
    place = index - (int(self._stops[number - 1]) if number else 0)
    payload = self.files[number].read(place)
    try:
      return tfrecords.parse_example(payload)
    except ValueError as error:
      raise DataPrepError(
        f'{self.files[number].path}: record {place} is not a tf.Example ({error})'
      ) from error

  def read(self, index: int) -> np.ndarray:
    example, origin = self.example(index), f'{self.files[0].path.parent}: record {index}'
    if _is_one_string(example.get('image')):
      return decode(example['image'][0], origin, self.mode, convert=True)
    if not _is_one_string(example.get('data')) or 'shape' not in example:
      raise DataPrepError(
        f'{origin} must have the features image, or data and shape, but has: {", ".join(example)}'
      )
    pixels = np.frombuffer(example['data'][0], np.uint8)
    shape = tuple(int(size) for size in example['shape'])
    if len(shape) != 3 or min(shape) < 1 or pixels.size != np.prod(shape):
      raise DataPrepError(f'{origin} has {pixels.size} bytes for the shape {list(shape)}')
    return pixels.reshape(shape)


def decode(data: bytes, origin: str, mode: str = 'RGB', convert: bool = False) -> np.ndarray:
  """A picture file as uint8 [H, W, C], C = 3 for `RGB` and 1 for `L`.

  Args:
    data: the bytes of the file.
    origin: what to call it in messages.
    mode: Pillow's name of the colour mode.
    convert: turn other modes into this one, rather than refuse them.

  Raises:
    DataPrepError: not a picture, damaged, of another mode, or of more pixels than Pillow's limit.
  """
  with _opened(data, origin) as image:
    if image.mode != mode and not convert:
      raise DataPrepError(f'{origin} must be an {mode} picture, but its mode is {image.mode}')
    if image.mode[:1] in ('I', 'F'):  # Pillow would cut the values off at 255
      raise DataPrepError(
        f'{origin} has more than 8 bits for each pixel (mode {image.mode}); save it with 8 bits'
      )
    pixels = np.asarray(image.convert(mode))
  return pixels.reshape(*pixels.shape[:2], -1)


def originals(found: Pictures, advice: str) -> Pictures:
  """The same pictures, of which each must be a PNG file, as they were published.

  Raises:
    DataPrepError: the first one is of another format; it is the first that is ever read.
  """
  if not isinstance(found, EncodedPictures):
    return found
  found = dataclasses.replace(found, format='PNG')
  try:
    found.read(0)
  except DataPrepError as error:
    raise DataPrepError(f'{error}; {advice}') from error
  return found


@contextlib.contextmanager
def _opened(data: bytes, origin: str) -> Iterator[Image.Image]:
  """A picture file, as Pillow sees it, with its errors turned into ours."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('error', Image.DecompressionBombWarning)
      with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        yield image
  except DataPrepError:
    raise
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
    raise DataPrepError(
      f'{origin} has more pixels than the {Image.MAX_IMAGE_PIXELS} that are taken to be harmless; '
      'make it smaller or take it out'
    ) from error
  except Exception as error:  # damage shows as many types
    found = error
    if data[:64].lstrip().lower().startswith(b'<'):
      found = 'it is a web page'
    elif isinstance(error, UnidentifiedImageError):
      found = f'it is none of {", ".join(FORMATS)}'
    raise DataPrepError(f'{origin} cannot be read as a picture: {found}') from error


def open_pictures(path: pathlib.Path, *, mode: str = 'RGB', convert: bool = False) -> Pictures:
  """Opens a container of pictures, whatever it is called.

  Args:
    path: folder, zip or tar of picture files (taken in the order of their sorted names), npy,
      TFRecord, or a folder or tar of TFRecords.
    mode, convert: see `decode`; for picture files.

  Raises:
    DataPrepError: no pictures there, or the container is damaged.
  """
  kind = recognise.container_of(path)
  if kind == 'npy':
    return _open_npy(path)
  if kind == 'tfrecord':
    return RecordPictures((tfrecords.index_file(path),), 'TFRecord')
  if kind not in ('folder', 'zip', 'tar', 'tar.gz'):
    recognise.refuse_page(path)
    unread = ', which is not read' if kind == 'lmdb' else ''
    raise DataPrepError(
      f'{path} must be a folder, zip, tar, npy or TFRecord of pictures, but its content is: '
      f'{kind}{unread}'
    )
  archive = archives.open_archive(path)
  names = tuple(enumerate(archive.names))
  indices = tuple(i for i, name in names if name.lower().endswith(_SUFFIXES))
  if indices:
    return EncodedPictures(archive, indices, mode, convert)
  if records := tuple(i for i, name in names if 'tfrecord' in name):
    return open_records(archive, records)
  raise DataPrepError(f'{path} holds no pictures')


def open_records(archive: archives.Archive, indices: tuple[int, ...]) -> RecordPictures:
  """The TFRecord files at these places of a folder or tar, in this order.

  Raises:
    DataPrepError: another kind of archive, or a damaged file.
  """
  if archive.kind == 'folder':
    files = (tfrecords.index_file(archive.path / archive.names[i]) for i in indices)
  elif archive.kind == 'tar':
    files = (tfrecords.index_file(archive.path, *archive.places[i]) for i in indices)
  else:
    raise DataPrepError(
      f'{archive.path} holds TFRecords in a {archive.kind}, where they cannot be read in parts; '
      'unpack it and give the folder'
    )
  return RecordPictures(tuple(files), f'{archive.kind} of TFRecords')


def _open_npy(path: pathlib.Path) -> NpyPictures:
  images = _memory_map(path)
  if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
    raise DataPrepError(
      f'{path} must be uint8 [N, H, W, 3] or [N, H, W, 1], but is {images.dtype} '
      f'{list(images.shape)}'
    )
  return NpyPictures(path, len(images))


def _is_one_string(value: tfrecords.Value | None) -> bool:
  return isinstance(value, list) and len(value) == 1


@functools.lru_cache(maxsize=4)
def _memory_map(path: pathlib.Path) -> np.ndarray:
  try:
    return np.load(path, mmap_mode='r', allow_pickle=False)
  except (ValueError, OSError, EOFError) as error:
    raise DataPrepError(f'{path} is a damaged or cut off npy file ({error})') from error
