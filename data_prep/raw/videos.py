"""Videos in whatever container, as one thing: names, and all frames for each index.

Everything opens lazily and pickles small, so that worker processes can read side by side.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import io
import pathlib
import re
from typing import Protocol

import av
import numpy as np
from PIL import Image, ImageSequence

from data_prep.errors import DataPrepError
from data_prep.raw import archives, pictures, recognise, tfds_folders
from data_prep.raw.pictures import RecordPictures

_FILMS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')
_SUFFIXES = (*_FILMS, '.gif', '.npz', '.npy')
_FILM_MAGIC = {  # format of FFmpeg -> how a file begins
  'mp4': re.compile(rb'....(ftyp|moov|mdat|free|wide)', re.DOTALL),
  'avi': re.compile(rb'RIFF....AVI ', re.DOTALL),
  'matroska': re.compile(rb'\x1aE\xdf\xa3'),
}
_FORMATS = {1: 'gray', 3: 'rgb24'}  # channels -> of PyAV
_MODES = {1: 'L', 3: 'RGB'}  # channels -> of Pillow
_MAX_FRAMES = 100_000  # of one video


class Videos(Protocol):
  """A sequence of videos.

  Attributes:
    names: of the videos, where the container has names; else their numbers as strings.
    kind: the container, in words.
  """

  names: Sequence[str]
  kind: str

  def read(self, index: int) -> np.ndarray:
    """One video, uint8 [T, H, W, C]; DataPrepError if it is damaged."""


@dataclasses.dataclass(frozen=True)
class EncodedVideos:
  """Video files inside a folder, zip or tar; `indices` are places in `archive.names`."""

  archive: archives.Archive
  indices: tuple[int, ...]
  channels: int

  @property
  def kind(self) -> str:
    return f'{self.archive.kind} of video files'

  @functools.cached_property
  def names(self) -> tuple[str, ...]:
    return tuple(self.archive.names[index] for index in self.indices)

  def read(self, index: int) -> np.ndarray:
    name = self.names[index]
    return decode(
      self.archive.read(self.indices[index]), f'{self.archive.path}: {name}', self.channels
    )


@dataclasses.dataclass(frozen=True)
class PreparedVideos:
  """Videos that tensorflow-datasets prepared: TFRecords whose `video` is a list of pictures."""

  records: RecordPictures
  channels: int
  kind: str = 'tfds'

  @property
  def names(self) -> Sequence[str]:
    return self.records.names

  def read(self, index: int) -> np.ndarray:
    example = self.records.example(index)
    origin = f'{self.records.files[0].path.parent}: record {index}'
    frames = example.get('video', example.get('image_sequence'))
    if not isinstance(frames, list) or not frames:
      raise DataPrepError(
        f'{origin} must have the feature video, a list of pictures, but has: {", ".join(example)}'
      )
    mode = _MODES[self.channels]
    return _stack([pictures.decode(frame, origin, mode, convert=True) for frame in frames], origin)


@dataclasses.dataclass(frozen=True)
class Footage:
  """Sequences out of video files, each checked against the length and size it must have."""

  videos: Videos
  frames: tuple[int, ...]
  size: tuple[int, int]

  def __call__(self, sequence: int) -> np.ndarray:
    video = self.videos.read(sequence)
    wanted = (self.frames[sequence], *self.size)
    if video.shape[:3] != wanted:
      raise DataPrepError(
        f'video {self.videos.names[sequence]} must have {_words(wanted)}, but has '
        f'{_words(video.shape[:3])}; it is damaged or of another data set'
      )
    return video


def decode(data: bytes, origin: str, channels: int) -> np.ndarray:
  """A video file as uint8 [T, H, W, channels]; told by its content.

  Raises:
    DataPrepError: not a video, damaged, without frames, or too long.
  """
  if data[:6] == b'\x93NUMPY' or data[:4] == b'PK\x03\x04':
    return _load_array(data, origin, channels)
  is_gif = data[:6] in (b'GIF87a', b'GIF89a')
  frames, size = [], 0
  try:
    for frame in _gif_frames(data, channels) if is_gif else _film_frames(data, channels):
      size += frame.nbytes
      if len(frames) == _MAX_FRAMES or size > archives.MAX_NPZ:
        raise DataPrepError(
          f'{origin} has more than {_MAX_FRAMES} frames or {archives.MAX_NPZ} bytes of pixels; cut '
          'it into parts or make it smaller'
        )
      frames.append(frame.reshape(*frame.shape[:2], channels))
  except DataPrepError:
    raise
  except Exception as error:  # damage shows as many types
    found = 'it is a web page' if data[:64].lstrip().lower().startswith(b'<') else error
    raise DataPrepError(f'{origin} cannot be read as a video: {found}; fetch it anew') from error
  return _stack(frames, origin)


def open_videos(path: pathlib.Path, channels: int, *, only: str = '') -> EncodedVideos:
  """Opens a folder, zip or tar of MP4 and other films, GIFs, npz or npy files.

  Args:
    path: the container; its videos are taken in the order of their sorted names.
    channels: 3, or 1 for grey.
    only: only what lies below a folder of this name.

  Raises:
    DataPrepError: no videos there, or the container is damaged.
  """
  archive = archives.open_archive(path)
  indices = tuple(
    index
    for index, name in enumerate(archive.names)
    if only in ('', *name.split('/')[:-1]) and name.lower().endswith(_SUFFIXES)
  )
  if not indices:
    raise DataPrepError(
      f'{path} holds no videos{f" below a folder {only}/" if only else ""} (files that end in '
      f'{", ".join(_SUFFIXES)})'
    )
  return EncodedVideos(archive, indices, channels)


def open_prepared(path: pathlib.Path, split: str, channels: int) -> PreparedVideos:
  """Opens a split of a folder that tensorflow-datasets prepared; its order is a shuffled one.

  Raises:
    DataPrepError: no such split, an empty one, or a missing or damaged shard.
  """
  records = tfds_folders.open_split(path, split, _MODES[channels])
  if not records.names:
    raise DataPrepError(f'{path} holds no videos in split {split!r}; prepare the folder again')
  return PreparedVideos(records, channels)


def _film_frames(data: bytes, channels: int) -> Iterator[np.ndarray]:
  kind = next((kind for kind, magic in _FILM_MAGIC.items() if magic.match(data)), None)
  if kind is None:  # other formats are texts that name further files to open
    raise ValueError(f'it is none of {", ".join(_FILM_MAGIC)}')
  with av.open(io.BytesIO(data), format=kind) as container:
    stream = container.streams.video[0]
    stream.thread_type = 'NONE'  # frames come out the same; processes share the cores already
    for frame in container.decode(stream):
      yield frame.to_ndarray(format=_FORMATS[channels])


def _gif_frames(data: bytes, channels: int) -> Iterator[np.ndarray]:
  with Image.open(io.BytesIO(data), formats=('GIF',)) as image:
    for frame in ImageSequence.Iterator(image):
      yield np.asarray(frame.convert(_MODES[channels]))


def _stack(frames: Sequence[np.ndarray], origin: str) -> np.ndarray:
  if not frames:
    raise DataPrepError(f'{origin} has no frames')
  sizes = {frame.shape[:2] for frame in frames}
  if len(sizes) > 1:
    raise DataPrepError(f'{origin} must have frames of one size, but has: {sorted(sizes)}')
  return np.stack(frames)


def _load_array(data: bytes, origin: str, channels: int) -> np.ndarray:
  """An npy, or the array `video` of an npz (or its only one): uint8 [T, H, W, C] or [T, H, W]."""
  try:
    if data[:4] == b'PK\x03\x04':
      archives.check_unpacked(io.BytesIO(data), origin)
    loaded = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(loaded, np.ndarray):
      loaded = loaded[
        'video' if 'video' in loaded.files or len(loaded.files) > 1 else loaded.files[0]
      ]
  except DataPrepError:
    raise
  except Exception as error:  # zip and header damage shows as many types
    raise DataPrepError(f'{origin} has no readable array `video` ({error})') from error
  video = loaded[..., np.newaxis] if loaded.ndim == 3 else loaded
  if not video.size:
    raise DataPrepError(f'{origin} has no frames')
  if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != channels:
    raise DataPrepError(
      f'{origin} must be uint8 [T, H, W, {channels}], but is {loaded.dtype} {list(loaded.shape)}'
    )
  return video


def refuse_other(path: pathlib.Path) -> None:
  """Raises DataPrepError unless `path` can hold videos."""
  kind = recognise.container_of(path)
  if kind not in ('folder', 'zip', 'tar', 'tar.gz'):
    raise DataPrepError(
      f'{path} must be a folder, zip or tar of videos, but its content is: {kind}'
    )


def _words(shape: Sequence[int]) -> str:
  return f'{shape[0]} frames of {shape[1]}x{shape[2]} px'
