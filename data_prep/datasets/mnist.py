"""MNIST, 70,000 handwritten digits, padded to 32x32 grey.

The input pipeline binarises, as both papers that train on it draw the pixels anew at each visit.
"""

import pathlib

import numpy as np

from data_prep.core import views
from data_prep.core.contents import Contents, Field, Split, View
from data_prep.core.request import About, RemoteFile, Request
from data_prep.errors import DataPrepError
from data_prep.raw import archives, idx_files, locate, parts, recognise, tfds_folders
from data_prep.raw.pictures import ArrayPictures
from data_prep.raw.preparation import Preparation, picture_set, split_of_pictures

_MIRROR = 'https://storage.googleapis.com/cvdf-datasets/mnist/'
ABOUT = About(
  records='32x32x1, label',
  splits='train 60000, test 10000; views efficient_vdvae/{train,valid,test}, nvae/{train,test}',
  built='76 MB',
  licence='LeCun and Cortes, usually quoted as CC BY-SA 3.0',
  samples_publishable=True,
  files=tuple(
    RemoteFile(f'{name}.gz', f'{_MIRROR}{name}.gz', size, sha256)
    for name, size, sha256 in (
      (
        'train-images-idx3-ubyte',
        9_912_422,
        '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609',
      ),
      (
        'train-labels-idx1-ubyte',
        28_881,
        '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c',
      ),
      (
        't10k-images-idx3-ubyte',
        1_648_877,
        '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6',
      ),
      (
        't10k-labels-idx1-ubyte',
        4_542,
        'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6',
      ),
    )
  ),
  tfds='mnist',
  fetch=f'get the four idx.gz files from {_MIRROR}',
)
COUNTS = {'train': 60_000, 'test': 10_000}
_SEED = 101  # seed of the halves of the test set
_PREPARE = Preparation(32, source=(28, 28), channels=1, pad=2)


def load(request: Request) -> Contents:
  """Reads idx files (gzipped or not, loose or in an archive), Keras' npz, or TFDS.

  Raises:
    DataPrepError: the raw files are missing, damaged, or hold other numbers of digits.
  """
  paths = locate.locate(request, ABOUT)
  kind, splits = _read_splits(paths)
  published = locate.check_published(paths, ABOUT, request.unverified)
  lines = [
    parts.check_count(f'digits in {name}', split.count, COUNTS[name])
    for name, split in splits.items()
  ]
  if kind == 'tfds':
    lines.append(
      '[warn] tensorflow-datasets keeps neither names nor order, so the halves '
      'efficient_vdvae/{valid,test} are not the published ones'
    )
  return picture_set(
    ABOUT,
    _PREPARE,
    source=f'MNIST from {kind}',
    variant='mnist',
    splits=splits,
    views=make_views(splits),
    container=kind,
    published=published,
    checks=tuple(lines),
    more_fields={'label': Field('uint8', ())},
  )


def make_views(splits: dict[str, Split]) -> dict[str, View]:
  """Returns the whole splits, the halves of the test set (Efficient-VDVAE), and NVAE's splits."""
  valid, test = views.shuffled_halves('test', splits['test'].count, _SEED)
  return {
    **views.whole(splits),
    **views.whole(splits, 'efficient_vdvae/', train='train'),
    'efficient_vdvae/valid': valid,
    'efficient_vdvae/test': test,
    **views.whole(splits, 'nvae/', train='train', test='test'),
  }


def _read_splits(paths: tuple[pathlib.Path, ...]) -> tuple[str, dict[str, Split]]:
  """Returns the kind of the container and its splits."""
  kind = recognise.container_of(paths[0])
  if kind == 'tfds':
    return kind, {name: _read_tfds(paths[0], name) for name in COUNTS}
  if kind == 'npz':
    return kind, _read_keras(paths[0])
  raw = idx_files.read_files(paths, ABOUT)
  return 'idx', {name: _split(*idx_files.parse_split(raw, name), name) for name in COUNTS}


def _read_keras(path: pathlib.Path) -> dict[str, Split]:
  try:
    archives.check_unpacked(path, str(path))
    with np.load(path, allow_pickle=False) as arrays:
      digits = {name: (arrays[f'x_{name}'], arrays[f'y_{name}']) for name in COUNTS}
  except DataPrepError:
    raise
  except Exception as error:  # zip and header damage shows as many types
    raise DataPrepError(
      f'{path} must be the npz of Keras with x_train, y_train, x_test and y_test ({error})'
    ) from error
  return {name: _split(image, label, name) for name, (image, label) in digits.items()}


def _read_tfds(folder: pathlib.Path, split: str) -> Split:
  records = tfds_folders.open_split(folder, split, mode='L')
  try:
    labels = [int(records.example(i)['label'][0]) for i in range(len(records.names))]
  except (KeyError, TypeError, IndexError) as error:
    raise DataPrepError(f'{folder} has no feature label in each record') from error
  return split_of_pictures(records, _PREPARE, label=np.array(labels, np.uint8))


def _split(image: np.ndarray, label: np.ndarray, name: str) -> Split:
  label = idx_files.checked_labels(image, label, name)
  return split_of_pictures(ArrayPictures(image[..., None], 'array'), _PREPARE, label=label)
