"""The three videos of the Clockwork VAE paper: MineRL Navigate, GQN mazes and Moving MNIST."""

import dataclasses
import pathlib

from data_prep.core import clips, sources
from data_prep.core.contents import Contents, Split
from data_prep.core.request import About, RemoteFile, Request
from data_prep.errors import DataPrepError
from data_prep.raw import locate, parts, recognise, videos
from data_prep.raw.collection import Collection

_ARCHIVE = 'https://archive.org/download/'


@dataclasses.dataclass(frozen=True)
class _Set:
  """Published facts about a set.

  Attributes:
    channels: channels of a frame, which has 64x64 px.
    frames: split -> length of every sequence.
    folders: split -> folder of its MP4 files in the archive.
    counts: split -> published numbers of sequences.
  """

  channels: int
  frames: dict[str, int]
  folders: dict[str, str]
  counts: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)


_PLAIN = {'train': 'train', 'test': 'test'}
SETS = {
  'minerl': _Set(3, {'train': 500, 'test': 500}, _PLAIN, {'train': (961,), 'test': (225, 255)}),
  'mazes': _Set(3, {'train': 300, 'test': 300}, _PLAIN),
  'moving_mnist': _Set(
    1, {'train': 100, 'test': 1000}, {'train': 'train-seq100', 'test': 'test-seq1000'}
  ),
}
_SIZE = (64, 64)
_URLS = {
  'minerl': 'minerl_navigate/minerl_navigate.zip',
  'mazes': 'gqn_mazes/gqn_mazes.zip',
  'moving_mnist': 'moving_mnist/moving_mnist_2digit.zip',
}
_TFDS = {
  'minerl': 'minerl_navigate',
  'mazes': 'gqn_mazes',
  'moving_mnist': 'moving_mnist_2digit',
}


def _about(name: str, words: str, built: str, licence: str, asks_first: bool) -> About:
  url = _ARCHIVE + _URLS[name]
  return About(
    records=f'{clips.CHUNK} frames of 64x64x{SETS[name].channels}',
    splits=f'{words}; views train, valid (= test), test',
    built=built,
    licence=licence,
    samples_publishable=True,
    files=(RemoteFile(pathlib.PurePosixPath(url).name, url),),
    tfds=_TFDS[name],
    fetch=f'get {url}',
    asks_first=asks_first,
  )


ABOUT = {
  'minerl': _about(
    'minerl', 'train 961 x 500 frames, test 225 or 255', '5 GB', 'CC BY-NC-SA 4.0', False
  ),
  'mazes': _about(
    'mazes', 'train about 30,000 x 300 frames, test', '80 GB', 'not stated; see the archive', True
  ),
  'moving_mnist': _about(
    'moving_mnist', 'train x 100 frames, test x 1000', '2 GB', 'as MNIST', False
  ),
}


def load(request: Request) -> Contents:
  """Reads the zip, the unpacked folder, or a folder that tensorflow-datasets prepared.

  Raises:
    DataPrepError: files are missing or damaged; when writing, a video has another length or size.
  """
  about, spec = ABOUT[request.name], SETS[request.name]
  path = parts.one(locate.locate(request, about), request.name)
  opened = {split: _open(path, split, spec) for split in spec.frames}
  version = sources.package_version('av')
  return clips.video_set(
    about,
    (*_SIZE, spec.channels),
    spec.frames,
    splits={split: _split(sequences, spec.frames[split]) for split, sequences in opened.items()},
    source=f'{request.name} from {opened["train"].kind}',
    packages={'av': version},
    preprocessing=f'decoded by PyAV {version} to {"grey" if spec.channels == 1 else "RGB"}, '
    'every frame; no resampling',
    variant=request.name,
    container=opened['train'].kind,
    published=locate.check_published((path,), about, request.unverified),
    checks=(
      *(_count_line(split, len(sequences.names), spec) for split, sequences in opened.items()),
      f'[ok] every sequence has {spec.frames["train"]} frames in train and '
      f'{spec.frames["test"]} in test, of 64x64x{spec.channels}',
    ),
    records_per_shard=2000,
  )


def _open(path: pathlib.Path, split: str, spec: _Set) -> Collection:
  kind = recognise.container_of(path)
  if kind == 'tfds':
    return videos.open_prepared(path, split, spec.channels)
  if kind == 'npy':
    raise DataPrepError(
      f'{path} must be a folder, zip or tar of videos, but its content is: npy; the npy of '
      'Srivastava, sequences of 20 frames, is another data set, moving_mnist20'
    )
  videos.check_container(path)
  return videos.open_videos(path, spec.channels, only=spec.folders[split])


def _split(sequences: Collection, frames: int) -> Split:
  lengths = (frames,) * len(sequences.names)
  return clips.split_of_film(videos.Footage(sequences, lengths, _SIZE), lengths)


def _count_line(split: str, count: int, spec: _Set) -> str:
  """Compares the number of sequences with the published ones; returns a line of the check list."""
  published = spec.counts.get(split)
  if not published:
    return f'[note] sequences in {split}: {count:,}; no number was published'
  expected = count if count in published else published[0]
  return parts.check_count(f'sequences in {split}', count, expected, certain=False)
