"""Any videos of your own: MP4 and other films, GIFs, npz or npy files, all of one size.

Sequences may differ in length. Videos below folders `train` and `test` become those splits; without
such folders, every tenth one by sorted name is for testing.
"""

import pathlib

import numpy as np

from data_prep.core import clips, sources
from data_prep.core.contents import Contents, Split
from data_prep.core.request import About, Request
from data_prep.errors import DataPrepError
from data_prep.raw import locate, parts, videos

ABOUT = About(
  records=f'{clips.CHUNK} frames of HxWx3, or x1 with --variant=grey',
  splits='train, test; views train, valid (= test), test',
  built='as much as the raw frames, or less',
  licence='that of your videos',
  samples_publishable=False,
  fetch='any folder, zip or tar of video files',
  variants=('rgb', 'grey'),
)
_CHANNELS = {None: 3, 'rgb': 3, 'grey': 1}


def load(request: Request) -> Contents:
  """Reads all videos once to find their lengths, and again to write them.

  Raises:
    DataPrepError: there are too few videos, one is damaged, their sizes differ, or the variant is
      unknown.
  """
  if request.variant not in _CHANNELS:
    raise DataPrepError(f'--variant={request.variant} must be rgb or grey')
  channels = _CHANNELS[request.variant]
  path = parts.one(locate.locate(request, ABOUT), request.name)
  videos.check_container(path)
  by_split, deal_lines = _deal(path, channels)
  lengths, size = _read_lengths(path, by_split)
  return clips.video_set(
    ABOUT,
    (*size, channels),
    {split: list(frames) for split, frames in lengths.items()},
    splits={split: _split(opened, lengths[split], size) for split, opened in by_split.items()},
    source=f'videos in {path.name}',
    packages={'av': sources.package_version('av')},
    preprocessing='every frame; no resampling',
    variant=request.variant or 'rgb',
    container=by_split['train'].kind,
    published=locate.check_published((path,), ABOUT, request.unverified),
    checks=(
      *deal_lines,
      *(
        f'[ok] {split}: {len(frames)} videos of {min(frames)} to {max(frames)} frames'
        for split, frames in lengths.items()
      ),
    ),
    records_per_shard=max(1, 2**28 // (clips.CHUNK * int(np.prod(size)) * channels)),
  )


def _read_lengths(
  path: pathlib.Path, by_split: dict[str, videos.EncodedVideos]
) -> tuple[dict[str, tuple[int, ...]], tuple[int, int]]:
  """Returns split -> frames of each video, and the height and width of all videos."""
  lengths, first = {}, {}  # size -> the first video that has it
  for split, opened in by_split.items():
    frames = []
    for index, name in enumerate(opened.names):
      shape = opened.read(index).shape
      first.setdefault(shape[1:3], name)
      frames.append(shape[0])
    lengths[split] = tuple(frames)
  if len(first) > 1:
    sizes = ', '.join(f'{name} has {h}x{w} px' for (h, w), name in first.items())
    raise DataPrepError(
      f'{path}: all videos must be of one size (height x width), but {sizes}; bring them to one'
    )
  (size,) = first
  return lengths, size


def _deal(
  path: pathlib.Path, channels: int
) -> tuple[dict[str, videos.EncodedVideos], tuple[str, ...]]:
  """Returns the videos of each split, and lines for the check list."""
  together = videos.open_videos(path, channels)
  folders = [set(name.split('/')[:-1]) for name in together.names]
  if any('train' in one for one in folders) and any('test' in one for one in folders):
    by_split = {
      split: videos.open_videos(path, channels, only=split) for split in ('train', 'test')
    }
    left_out = [
      name for name, one in zip(together.names, folders, strict=True) if not one & set(by_split)
    ]
    return by_split, _left_out_lines(left_out)
  if len(together.names) < 2:
    raise DataPrepError(
      f'{path} holds {len(together.names)} video, but needs two at least, one of them to test; add '
      'more, or cut it into parts'
    )
  test = together.indices[::10]
  train = tuple(index for number, index in enumerate(together.indices) if number % 10)
  return {
    'train': videos.EncodedVideos(together.archive, train, channels),
    'test': videos.EncodedVideos(together.archive, test, channels),
  }, ()


def _left_out_lines(names: list[str]) -> tuple[str, ...]:
  if not names:
    return ()
  return (
    f'[warn] left out, as neither below train nor below test: {len(names)} videos, the first '
    f'{names[0]}',
  )


def _split(opened: videos.EncodedVideos, lengths: tuple[int, ...], size: tuple[int, int]) -> Split:
  return clips.split_of_film(videos.Footage(opened, lengths, size), lengths)
