"""Collections of still pictures: folders, zips, tars, npy files and TFRecords of pictures."""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import functools
import io
import pathlib
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from data_prep.errors import DataPrepError
from data_prep.raw import archives, recognise, tfrecords
from data_prep.raw.collection import Collection, Members, Numbers

_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.gif', '.tif', '.tiff', '.ppm')


# Formats of Pillow. Others are left out: EPS, for example, would start another program.
FORMATS = ('PNG', 'JPEG', 'BMP', 'WEBP', 'GIF', 'TIFF', 'PPM')


@dataclasses.dataclass(frozen=True)
class EncodedPictures(Members):
  """Picture files inside a folder, zip or tar.

  Attributes:
    mode: colour mode of Pillow; pictures of another mode are refused, or converted.
    convert: whether to convert other modes.
    format: format of Pillow; pictures of another format are refused. '' accepts any.
  """

  mode: str = 'RGB'
  convert: bool = False
  format: str = ''

  @property
  def kind(self) -> str:
    return self.archive.kind

  def read(self, index: int) -> np.ndarray:
    data, origin = self.read_file(index)
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
  """Pictures of an npy file uint8 [N, H, W, C], read through a memory map."""

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
  """Pictures in memory, uint8 [N, H, W, C]."""

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
  mode: str = 'RGB'  # colour mode of Pillow; encoded pictures of other modes are converted

  @functools.cached_property
  def names(self) -> Sequence[str]:
    return Numbers(sum(len(file.offsets) for file in self.files))

  @functools.cached_property
  def _stops(self) -> np.ndarray:
    return np.cumsum([len(file.offsets) for file in self.files])

  def example(self, index: int) -> dict[str, tfrecords.Value]:
    """Returns the parsed record; raises DataPrepError if it is damaged."""
    number = int(np.searchsorted(self._stops, index, side='right'))
    record = index - (int(self._stops[number - 1]) if number else 0)
    payload = self.files[number].read(record)
    try:
      return tfrecords.parse_example(payload)
    except ValueError as error:
      raise DataPrepError(
        f'{self.files[number].path}: record {record} is not a tf.Example ({error})'
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
  """Decodes a picture file: uint8 [H, W, C], C = 3 for `RGB` and 1 for `L`.

  Args:
    data: the bytes of the file.
    origin: name of the file in messages.
    mode: Pillow's name of the colour mode.
    convert: convert other modes to this one instead of refusing them.

  Raises:
    DataPrepError: the file is no picture, is damaged, has another mode, or exceeds Pillow's limit
      of pixels.
  """
  with _opened(data, origin) as image:
    if image.mode != mode and not convert:
      raise DataPrepError(f'{origin} must be an {mode} picture, but its mode is {image.mode}')
    if image.mode[:1] in ('I', 'F'):  # Pillow would clip the values at 255
      raise DataPrepError(
        f'{origin} has more than 8 bits for each pixel (mode {image.mode}); save it with 8 bits'
      )
    pixels = np.asarray(image.convert(mode))
  return pixels.reshape(*pixels.shape[:2], -1)


def only_png(pictures: Collection, advice: str) -> Collection:
  """Requires every picture file to be a PNG, as published; other collections pass unchanged.

  Raises:
    DataPrepError: the first picture has another format; the others are checked when read.
  """
  if not isinstance(pictures, EncodedPictures):
    return pictures
  pictures = dataclasses.replace(pictures, format='PNG')
  try:
    pictures.read(0)
  except DataPrepError as error:
    raise DataPrepError(f'{error}; {advice}') from error
  return pictures


@contextlib.contextmanager
def _opened(data: bytes, origin: str) -> Iterator[Image.Image]:
  """Opens a picture file with Pillow; its errors become DataPrepError."""
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
    reason = error
    if data[:64].lstrip().lower().startswith(b'<'):
      reason = 'it is a web page'
    elif isinstance(error, UnidentifiedImageError):
      reason = f'it is none of {", ".join(FORMATS)}'
    raise DataPrepError(f'{origin} cannot be read as a picture: {reason}') from error


def open_pictures(path: pathlib.Path, *, mode: str = 'RGB', convert: bool = False) -> Collection:
  """Opens a container of pictures; its content, not its name, tells its kind.

  Args:
    path: folder, zip or tar of picture files (taken in the order of their sorted names), npy,
      TFRecord, or a folder or tar of TFRecords.
    mode, convert: see `decode`; for picture files.

  Raises:
    DataPrepError: the container holds no pictures or is damaged.
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
  """Opens the TFRecord files at these positions of a folder or tar, in this order.

  Raises:
    DataPrepError: the archive is of another kind, or a file is damaged.
  """
  if archive.kind == 'folder':
    files = (tfrecords.index_file(archive.path / archive.names[i]) for i in indices)
  elif archive.kind == 'tar':
    files = (tfrecords.index_file(archive.path, *archive.ranges[i]) for i in indices)
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
    raise DataPrepError(f'{path} is a damaged or truncated npy file ({error})') from error
