"""Collections of videos: folders, zips and tars of video files, and folders of TFDS."""

from collections.abc import Iterator, Sequence
import dataclasses
import io
import pathlib
import re

import av
import numpy as np
from PIL import Image, ImageSequence

from data_prep.errors import DataPrepError
from data_prep.raw import archives, pictures, recognise, tfds_folders
from data_prep.raw.collection import Collection, Members
from data_prep.raw.pictures import RecordPictures

_FILMS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')
_SUFFIXES = (*_FILMS, '.gif', '.npz', '.npy')
_FILM_MAGIC = {  # format of FFmpeg -> first bytes of a file
  'mp4': re.compile(rb'....(ftyp|moov|mdat|free|wide)', re.DOTALL),
  'avi': re.compile(rb'RIFF....AVI ', re.DOTALL),
  'matroska': re.compile(rb'\x1aE\xdf\xa3'),
}
_FORMATS = {1: 'gray', 3: 'rgb24'}  # channels -> pixel format of PyAV
_MODES = {1: 'L', 3: 'RGB'}  # channels -> colour mode of Pillow
_MAX_FRAMES = 100_000  # in one video


@dataclasses.dataclass(frozen=True)
class EncodedVideos(Members):
  """Video files inside a folder, zip or tar."""

  channels: int

  @property
  def kind(self) -> str:
    return f'{self.archive.kind} of video files'

  def read(self, index: int) -> np.ndarray:
    return decode(*self.read_file(index), self.channels)


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
  """Sequences of a collection of videos, each checked against its required length and size."""

  videos: Collection
  frames: tuple[int, ...]
  size: tuple[int, int]

  def __call__(self, sequence: int) -> np.ndarray:
    video = self.videos.read(sequence)
    required = (self.frames[sequence], *self.size)
    if video.shape[:3] != required:
      raise DataPrepError(
        f'video {self.videos.names[sequence]} must have {_words(required)}, but has '
        f'{_words(video.shape[:3])}; it is damaged or of another data set'
      )
    return video


def decode(data: bytes, origin: str, channels: int) -> np.ndarray:
  """Decodes a video file: uint8 [T, H, W, channels]; its content tells its format.

  Raises:
    DataPrepError: the file is no video, is damaged, has no frames, or is too long.
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
    reason = 'it is a web page' if data[:64].lstrip().lower().startswith(b'<') else error
    raise DataPrepError(
      f'{origin} cannot be read as a video: {reason}; download it again'
    ) from error
  return _stack(frames, origin)


def open_videos(path: pathlib.Path, channels: int, *, only: str = '') -> EncodedVideos:
  """Opens a folder, zip or tar of MP4 and other films, GIFs, npz or npy files.

  Args:
    path: the container; its videos are ordered by name.
    channels: 3, or 1 for grey.
    only: take only videos below a folder of this name.

  Raises:
    DataPrepError: the container holds no videos or is damaged.
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
  """Opens a split of a folder that tensorflow-datasets prepared; its order is shuffled.

  Raises:
    DataPrepError: the split is missing or empty, or a shard is missing or damaged.
  """
  records = tfds_folders.open_split(path, split, _MODES[channels])
  if not records.names:
    raise DataPrepError(f'{path} holds no videos in split {split!r}; prepare the folder again')
  return PreparedVideos(records, channels)


def _film_frames(data: bytes, channels: int) -> Iterator[np.ndarray]:
  kind = next((kind for kind, magic in _FILM_MAGIC.items() if magic.match(data)), None)
  if kind is None:  # other formats are playlists, which name further files to open
    raise ValueError(f'it is none of {", ".join(_FILM_MAGIC)}')
  with av.open(io.BytesIO(data), format=kind) as container:
    stream = container.streams.video[0]
    stream.thread_type = 'NONE'  # same frames; the processes share the cores already
    for frame in container.decode(stream):
      yield frame.to_ndarray(format=_FORMATS[channels])


def _gif_frames(data: bytes, channels: int) -> Iterator[np.ndarray]:
  with Image.open(io.BytesIO(data), formats=('GIF',)) as image:
    for frame in ImageSequence.Iterator(image):
      yield np.asarray(frame.convert(_MODES[channels]))


def _stack(frames: Sequence[np.ndarray], origin: str) -> np.ndarray:
  """Joins frames to a video; raises DataPrepError if there are none or their sizes differ."""
  if not frames:
    raise DataPrepError(f'{origin} has no frames')
  sizes = {frame.shape[:2] for frame in frames}
  if len(sizes) > 1:
    raise DataPrepError(f'{origin} must have frames of one size, but has: {sorted(sizes)}')
  return np.stack(frames)


def _load_array(data: bytes, origin: str, channels: int) -> np.ndarray:
  """Reads an npy, or the array `video` of an npz (or its only one): [T, H, W, C] or [T, H, W]."""
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


def check_container(path: pathlib.Path) -> None:
  """Raises DataPrepError unless `path` can hold videos."""
  kind = recognise.container_of(path)
  if kind not in ('folder', 'zip', 'tar', 'tar.gz'):
    raise DataPrepError(
      f'{path} must be a folder, zip or tar of videos, but its content is: {kind}'
    )


def _words(shape: Sequence[int]) -> str:
  return f'{shape[0]} frames of {shape[1]}x{shape[2]} px'
