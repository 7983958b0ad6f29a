"""Static binarised MNIST (Larochelle), padded to 32x32; pixels are 0 or 255.

Its likelihoods must not be compared with those of MNIST. No config uses it by default, since both
papers with MNIST binarise anew at each visit.
"""

import pathlib

import numpy as np

from data_prep.core import views
from data_prep.core.contents import Contents, Split
from data_prep.core.request import About, RemoteFile, Request
from data_prep.errors import DataPrepError
from data_prep.raw import locate, parts, recognise, tfds_folders
from data_prep.raw.pictures import ArrayPictures
from data_prep.raw.preparation import Preparation, picture_set, split_of_pictures

_SITE = 'https://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/'
COUNTS = {'train': 50_000, 'valid': 10_000, 'test': 10_000}
ABOUT = About(
  records='32x32x1',
  splits='train 50000, valid 10000, test 10000',
  built='74 MB',
  licence='LeCun and Cortes, usually quoted as CC BY-SA 3.0; binarisation: Larochelle',
  samples_publishable=True,
  files=tuple(
    RemoteFile(f'binarized_mnist_{split}.amat', f'{_SITE}binarized_mnist_{split}.amat', size, hash_)
    for split, size, hash_ in (
      ('train', 78_400_000, 'ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d'),
      ('valid', 15_680_000, '1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2'),
      ('test', 15_680_000, 'e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c'),
    )
  ),
  tfds='binarized_mnist',
  fetch=f'get binarized_mnist_{{train,valid,test}}.amat from {_SITE}',
)
_PREPARE = Preparation(32, source=(28, 28), channels=1, pad=2)
_TFDS_SPLITS = {'train': 'train', 'valid': 'validation', 'test': 'test'}  # split -> name of TFDS


def load(request: Request) -> Contents:
  """Reads the three amat text files, or TFDS.

  Raises:
    DataPrepError: the raw files are missing or damaged, not binary, or of other lengths.
  """
  paths = locate.locate(request, ABOUT)
  kind = recognise.container_of(paths[0])
  if kind == 'tfds':
    splits = {name: _read_tfds(paths[0], split) for name, split in _TFDS_SPLITS.items()}
  else:
    files = parts.by_role(paths, {'train': 'train', 'valid': 'valid', 'test': 'test'})
    kind = 'amat'
    splits = {role: _split(_read_amat(parts.one(group, role))) for role, group in files.items()}
    paths = tuple(path for group in files.values() for path in group)
  published = locate.check_published(paths, ABOUT, request.unverified)
  counts = tuple(parts.check_count(f'digits in {s}', splits[s].count, COUNTS[s]) for s in splits)
  return picture_set(
    ABOUT,
    _PREPARE,
    source=f'static binarised MNIST from {kind}',
    variant='static',
    splits=splits,
    views=views.whole(splits),
    container=kind,
    published=published,
    checks=counts,
  )


def _read_amat(path: pathlib.Path) -> np.ndarray:
  """Reads lines of 784 times `0 ` or `1 `: uint8 [N, 28, 28, 1] of 0 and 255."""
  if recognise.container_of(path) != 'amat':
    raise DataPrepError(f'{path} must be text of 0 and 1, but is: {recognise.container_of(path)}')
  lines = path.read_bytes().translate(None, b' \t\r').rstrip(b'\n').split(b'\n')
  for number, line in enumerate(lines, 1):
    if len(line) != 784 or line.translate(None, b'01'):
      odd = line.translate(None, b'01')[:1]
      raise DataPrepError(
        f'{path} must hold 784 times 0 or 1 in each line, but line {number} '
        + (f'has a {odd.decode("latin1")!r}' if odd else f'has {len(line)} digits')
        + '; download it again'
      )
  digits = np.frombuffer(b''.join(lines), np.uint8)
  return (digits.reshape(-1, 28, 28, 1) - ord('0')) * np.uint8(255)


def _read_tfds(folder: pathlib.Path, split: str) -> Split:
  records = tfds_folders.open_split(folder, split, mode='L')
  images = np.stack([records.read(index) for index in range(len(records.names))])
  return _split(images * np.uint8(255) if images.max() == 1 else images)


def _split(images: np.ndarray) -> Split:
  if not np.isin(images, (0, 255)).all():
    raise DataPrepError('the pictures of binarized_mnist must be binary, but have grey levels')
  return split_of_pictures(ArrayPictures(images, 'array'), _PREPARE)
