"""CIFAR-10, 60,000 colour pictures of 32x32."""

import pathlib
import re

import numpy as np

from data_prep.core import views
from data_prep.core.contents import Contents, Field, Split, View
from data_prep.core.request import About, RemoteFile, Request
from data_prep.errors import DataPrepError
from data_prep.raw import archives, locate, parts, pickled_arrays, recognise, tfds_folders
from data_prep.raw.pictures import ArrayPictures
from data_prep.raw.preparation import Preparation, picture_set, split_of_pictures

_SITE = 'https://www.cs.toronto.edu/~kriz/'
ABOUT = About(
  records='32x32x3, label',
  splits='train 50000, test 10000; views vdvae/{train,valid,test}, '
  'efficient_vdvae/{train,valid,test}, nvae/{train,test}',
  built='189 MB',
  licence='none stated; cite Krizhevsky, Learning multiple layers of features, 2009',
  samples_publishable=True,
  files=(
    RemoteFile(
      'cifar-10-binary.tar.gz',
      f'{_SITE}cifar-10-binary.tar.gz',
      170_052_171,
      'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
    ),
  ),
  tfds='cifar10',
  fetch=f'get cifar-10-binary.tar.gz or cifar-10-python.tar.gz from {_SITE}',
)
COUNTS = {'train': 50_000, 'test': 10_000}
_PREPARE = Preparation(32, source=(32, 32))
_FILES = {'train': [f'data_batch_{n}' for n in range(1, 6)], 'test': ['test_batch']}


def load(request: Request) -> Contents:
  """Reads the pickled or the binary batches (folder, tar.gz, tar, zip), or TFDS.

  Raises:
    DataPrepError: a batch is missing or damaged, asks for more than arrays, or CIFAR-100 is given.
  """
  paths = locate.locate(request, ABOUT)
  path = parts.one(paths, 'cifar10')
  kind = recognise.container_of(path)
  if kind == 'tfds':
    arrays = {split: _read_tfds(path, split) for split in COUNTS}
  else:
    arrays = _read_batches(path)
  published = locate.check_published(paths, ABOUT, request.unverified)
  counts = tuple(
    parts.check_count(f'pictures in {split}', len(labels), COUNTS[split])
    for split, (_, labels) in arrays.items()
  )
  splits = {
    split: split_of_pictures(ArrayPictures(images, kind), _PREPARE, label=labels)
    for split, (images, labels) in arrays.items()
  }
  return picture_set(
    ABOUT,
    _PREPARE,
    source=f'CIFAR-10 from {kind}',
    variant='cifar-10',
    splits=splits,
    views=make_views(splits),
    container=kind,
    published=published,
    checks=counts,
    more_fields={'label': Field('uint8', ())},
  )


def make_views(splits: dict[str, Split]) -> dict[str, View]:
  """Returns the whole splits, and the splits of the three papers."""
  train, valid = views.head_of_permutation('train', splits['train'].count, 11172018, 5000)
  half_valid, half_test = views.shuffled_halves('test', splits['test'].count, 101)
  return {
    **views.whole(splits),
    'vdvae/train': train,
    'vdvae/valid': valid,
    **views.whole(splits, 'vdvae/', test='test'),
    **views.whole(splits, 'efficient_vdvae/', train='train'),
    'efficient_vdvae/valid': half_valid,
    'efficient_vdvae/test': half_test,
    **views.whole(splits, 'nvae/', train='train', test='test'),
  }


def _read_batches(path: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Reads split -> images [N, 32, 32, 3] and labels [N], in the order of the batches."""
  archive = archives.open_archive(path)
  indices = {pathlib.PurePosixPath(name).name: i for i, name in enumerate(archive.names)}
  if {'train', 'meta'} <= set(indices) or 'train.bin' in indices:
    raise DataPrepError(f'{path} is CIFAR-100, another data set; {ABOUT.fetch}')
  suffix = '.bin' if 'test_batch.bin' in indices else ''
  arrays = {}
  for split, names in _FILES.items():
    batches = []
    for name in names:
      if name + suffix not in indices:
        raise DataPrepError(f'{path} has no file {name}{suffix}; {ABOUT.fetch}')
      data, origin = archive.read(indices[name + suffix]), f'{path}: {name}{suffix}'
      batches.append(_read_binary(data, origin) if suffix else _read_pickle(data, origin))
    arrays[split] = tuple(np.concatenate(parts_) for parts_ in zip(*batches, strict=True))
  return arrays


def _read_pickle(data: bytes, origin: str) -> tuple[np.ndarray, np.ndarray]:
  batch = pickled_arrays.read(data, origin)
  pixels, labels = batch.get(b'data'), batch.get(b'labels')
  if (
    not isinstance(pixels, np.ndarray)
    or pixels.dtype != np.uint8
    or pixels.ndim != 2
    or pixels.shape[1] != 3072
  ):
    raise DataPrepError(f"{origin} must hold b'data', uint8 [N, 3072]; download it again")
  if (
    not isinstance(labels, list)
    or len(labels) != len(pixels)
    or not all(isinstance(label, int) and 0 <= label <= 9 for label in labels)
  ):
    raise DataPrepError(
      f"{origin} must hold b'labels', a number from 0 to 9 for each row of b'data'; "
      'download it again'
    )
  return _from_planes(pixels), np.array(labels, np.uint8)


def _read_binary(data: bytes, origin: str) -> tuple[np.ndarray, np.ndarray]:
  """Reads rows of a label and 3072 pixels, 3073 bytes each."""
  if not data or len(data) % 3073:
    raise DataPrepError(f'{origin} must hold rows of 3073 bytes, but holds {len(data)} bytes')
  rows = np.frombuffer(data, np.uint8).reshape(-1, 3073)
  if rows[:, 0].max() > 9:
    raise DataPrepError(f'{origin} has a label {rows[:, 0].max()}, but there are only 0 to 9')
  return _from_planes(rows[:, 1:]), rows[:, 0].copy()


def _from_planes(pixels: np.ndarray) -> np.ndarray:
  """Converts colour planes [N, 3072] to pictures [N, 32, 32, 3]."""
  return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _read_tfds(folder: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray]:
  """Reads a split in the order of the batches, given by the feature `id`: `train_00000`."""
  records = tfds_folders.open_split(folder, split)
  examples = [records.example(index) for index in range(len(records.names))]
  try:
    numbers = [int(re.fullmatch(r'\w+_(\d+)', e['id'][0].decode())[1]) for e in examples]
    labels = np.array([example['label'][0] for example in examples], np.uint8)
  except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
    raise DataPrepError(
      f'{folder} has no features id and label, without which the order of the batches is lost'
    ) from error
  order = np.argsort(numbers)
  if np.any(np.array(numbers)[order] != np.arange(len(order))):
    raise DataPrepError(f'{folder}: the ids of {split} must be 0, 1, ... without holes or repeats')
  return np.stack([records.read(int(index)) for index in order]), labels[order]
