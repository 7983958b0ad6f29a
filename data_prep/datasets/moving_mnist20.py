"""The Moving MNIST test set of Srivastava: 10,000 sequences of 20 frames, 64x64 grey.

Not the set of the Clockwork VAE paper, which is `moving_mnist`.
"""

import dataclasses
import pathlib

import numpy as np

from data_prep.core import clips
from data_prep.core.contents import Contents, View
from data_prep.core.request import About, RemoteFile, Request
from data_prep.errors import DataPrepError
from data_prep.raw import locate, parts, recognise, videos
from data_prep.raw.collection import Collection

_URL = 'https://www.cs.toronto.edu/~nitish/unsupervised_video/mnist_test_seq.npy'
ABOUT = About(
  records='20 frames of 64x64x1',
  splits='test 10000 x 20 frames; views train 9000, valid 500, test 500, in order',
  built='160 MB',
  licence='as MNIST',
  samples_publishable=True,
  files=(
    RemoteFile(
      'mnist_test_seq.npy',
      _URL,
      819_200_096,
      'c2a3e8d3939c001ab77bf543f130157424efa486bb4d0974d2cebb773b13f8b3',
    ),
  ),
  tfds='moving_mnist',
  fetch=f'get {_URL}',
)
COUNT = 10_000
_FRAMES = 20
_SIZE = (64, 64)


@dataclasses.dataclass(frozen=True)
class _Transposed:
  """Sequences of an npy [20, N, 64, 64], read through a memory map."""

  path: pathlib.Path
  names: range
  kind: str = 'npy'

  def read(self, index: int) -> np.ndarray:
    return np.array(np.load(self.path, mmap_mode='r')[:, index])[..., np.newaxis]


def load(request: Request) -> Contents:
  """Reads the npy file, or TFDS.

  Raises:
    DataPrepError: the file is missing or damaged, or has another number of sequences.
  """
  path = parts.one(locate.locate(request, ABOUT), request.name)
  sequences = _open(path)
  count = len(sequences.names)
  count_line = parts.check_count('sequences', count, COUNT)
  lengths = (_FRAMES,) * count
  return clips.video_set(
    ABOUT,
    (*_SIZE, 1),
    {'test': _FRAMES},
    splits={'test': clips.split_of_film(videos.Footage(sequences, lengths, _SIZE), lengths)},
    views=make_views(count),
    source=f'Moving MNIST of Srivastava from {sequences.kind}',
    preprocessing='none',
    variant='srivastava',
    container=sequences.kind,
    published=locate.check_published((path,), ABOUT, request.unverified),
    checks=(count_line, *_order_lines(sequences.kind)),
    records_per_shard=2000,
  )


def make_views(count: int) -> dict[str, View]:
  """Splits the test set, in order, into 90 % train, 5 % valid and 5 % test; this is our choice."""
  first, second = count * 18 // 20, count * 19 // 20
  borders = {'train': (0, first), 'valid': (first, second), 'test': (second, count)}
  return {
    name: View('test', f'{start} <= sequence < {stop} (ours)', np.arange(start, stop))
    for name, (start, stop) in borders.items()
  }


def _order_lines(kind: str) -> tuple[str, ...]:
  if kind != 'tfds':
    return ()
  return (
    '[warn] tensorflow-datasets keeps no order, so the views hold other sequences than those '
    'built from the npy file',
  )


def _open(path: pathlib.Path) -> Collection:
  kind = recognise.container_of(path)
  if kind == 'tfds':
    return videos.open_prepared(path, 'test', 1)
  if kind != 'npy':
    raise DataPrepError(
      f'{path} must be the npy file of Srivastava, but its content is: {kind}; the MP4 archive is '
      'another data set, moving_mnist'
    )
  try:
    array = np.load(path, mmap_mode='r')
  except (ValueError, OSError, EOFError) as error:
    raise DataPrepError(
      f'{path} is a damaged or truncated npy file ({error}); download it again'
    ) from error
  if (
    array.dtype != np.uint8 or array.ndim != 4 or (array.shape[0], *array.shape[2:]) != (20, *_SIZE)
  ):
    raise DataPrepError(
      f'{path} must be uint8 [20, N, 64, 64], but is {array.dtype} {list(array.shape)}'
    )
  return _Transposed(path, range(array.shape[1]))
