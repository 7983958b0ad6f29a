"""Any videos of your own: MP4 and other films, GIFs, npz or npy files, all of one size.

Sequences may differ in length. Videos below folders `train` and `test` become those splits; without
such folders, every tenth one by sorted name is for testing.
"""

import pathlib

import numpy as np

from data_prep.core import clips, sources
from data_prep.core.contents import CardInfo, Contents, Split
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
    DataPrepError: no or too few videos, a damaged one, several sizes, or an unknown variant.
  """
  if request.variant not in _CHANNELS:
    raise DataPrepError(f'--variant={request.variant} must be rgb or grey')
  channels = _CHANNELS[request.variant]
  path = parts.one(locate.locate(request, ABOUT), request.name)
  videos.refuse_other(path)
  found, deal_lines = _deal(path, channels)
  lengths, size = _measure(path, found)
  files, hash_lines = locate.check_published((path,), ABOUT, request.unverified)
  version = sources.package_version('av')
  return Contents(
    fields=clips.fields(*size, channels),
    splits={split: _split(opened, lengths[split], size) for split, opened in found.items()},
    views=clips.views(),
    info=CardInfo(
      version=1,
      source=f'videos in {path.name}',
      packages={'av': version},
      files=files,
      preprocessing='every frame; no resampling',
      licence=ABOUT.licence,
      samples_publishable=False,
      variant=request.variant or 'rgb',
      details=clips.details(**{split: list(found) for split, found in lengths.items()}),
    ),
    checks=(
      f'[ok] container: {found["train"].kind}',
      *hash_lines,
      *deal_lines,
      *(
        f'[ok] {split}: {len(found)} videos of {min(found)} to {max(found)} frames'
        for split, found in lengths.items()
      ),
    ),
    records_per_shard=max(1, 2**28 // (clips.CHUNK * int(np.prod(size)) * channels)),
    compression='zstd',
  )


def _measure(
  path: pathlib.Path, found: dict[str, videos.EncodedVideos]
) -> tuple[dict[str, tuple[int, ...]], tuple[int, int]]:
  """Split -> frames of each video, and the height and width of all."""
  lengths, first = {}, {}  # size -> the first video that has it
  for split, opened in found.items():
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
  """The videos of each split, and lines for the check list."""
  found = videos.open_videos(path, channels)
  folders = [set(name.split('/')[:-1]) for name in found.names]
  if any('train' in one for one in folders) and any('test' in one for one in folders):
    dealt = {split: videos.open_videos(path, channels, only=split) for split in ('train', 'test')}
    left = [name for name, one in zip(found.names, folders, strict=True) if not one & set(dealt)]
    return dealt, _left_lines(left)
  if len(found.names) < 2:
    raise DataPrepError(
      f'{path} holds {len(found.names)} video, but needs two at least, one of them to test; add '
      'more, or cut it into parts'
    )
  test = found.indices[::10]
  train = tuple(index for place, index in enumerate(found.indices) if place % 10)
  return {
    'train': videos.EncodedVideos(found.archive, train, channels),
    'test': videos.EncodedVideos(found.archive, test, channels),
  }, ()


def _left_lines(names: list[str]) -> tuple[str, ...]:
  if not names:
    return ()
  return (
    f'[warn] left out, as neither below train nor below test: {len(names)} videos, the first '
    f'{names[0]}',
  )


def _split(found: videos.EncodedVideos, lengths: tuple[int, ...], size: tuple[int, int]) -> Split:
  return clips.split_of_film(videos.Footage(found, lengths, size), lengths)
