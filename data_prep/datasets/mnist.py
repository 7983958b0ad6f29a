"""MNIST, 70,000 handwritten digits, padded to 32x32 grey.

The input pipeline binarises, as both papers that train on it draw the pixels anew at each visit.
"""

import gzip
import io
import pathlib
import re
import zlib

import numpy as np

from data_prep.core import views
from data_prep.core.contents import Contents, Field, Split, View
from data_prep.core.request import About, RemoteFile, Request
from data_prep.errors import DataPrepError
from data_prep.raw import archives, locate, parts, recognise, tfds_folders
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
_ROLES = {
  'train images': r'train.*images',
  'train labels': r'train.*labels',
  'test images': r't10k.*images',
  'test labels': r't10k.*labels',
}
_PREPARE = Preparation(32, source=(28, 28), channels=1, pad=2)
_MAX_FILE = 2**27  # bytes of an unpacked idx file


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
  raw = _idx_files(paths)
  splits = {}
  for split in COUNTS:
    image, label = (_parse_idx(*raw[f'{split} {what}']) for what in ('images', 'labels'))
    splits[split] = _split(image, label, split)
  return 'idx', splits


def _idx_files(paths: tuple[pathlib.Path, ...]) -> dict[str, tuple[bytes, str]]:
  """Reads role -> (bytes, name) of the four files, single or inside one folder, zip or tar."""
  if len(paths) == 1 and recognise.container_of(paths[0]) in ('zip', 'tar', 'tar.gz', 'folder'):
    archive = archives.open_archive(paths[0])
    files = {}
    for role, rule in _ROLES.items():
      index = next((i for i, n in enumerate(archive.names) if re.search(rule, _base(n))), None)
      if index is None:
        raise DataPrepError(f'{paths[0]} holds no {role} (a name like {rule}); {ABOUT.fetch}')
      files[role] = archive.read(index), archive.names[index]
    return files
  given = parts.by_role(paths, _ROLES)
  return {role: (parts.one(given[role], role).read_bytes(), given[role][0].name) for role in given}


def _parse_idx(data: bytes, name: str) -> np.ndarray:
  """Parses an idx file, gzipped or not: uint8 of the shape in its header."""
  try:
    if data[:2] == b'\x1f\x8b':
      with gzip.open(io.BytesIO(data)) as file:
        data = file.read(_MAX_FILE)
  except (OSError, EOFError, zlib.error) as error:
    raise DataPrepError(f'{name} is a damaged gzip file ({error}); download it again') from error
  if data[:3] != b'\x00\x00\x08' or data[3:4] not in (b'\x01', b'\x03'):
    raise DataPrepError(
      f'{name} must be an idx file (magic 2051 or 2049), but begins with {data[:4].hex()}'
    )
  start = 4 + 4 * data[3]
  if len(data) < start:
    raise DataPrepError(f'{name} ends inside its header: it is truncated; download it again')
  shape = np.frombuffer(data[4:start], '>u4').astype(np.int64)
  if len(data) - start != shape.prod():
    raise DataPrepError(
      f'{name} must hold {shape.prod()} bytes for the shape {shape.tolist()}, but holds '
      f'{len(data) - start}: it is truncated; download it again'
    )
  return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


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
  """Checks the digits and labels of a split."""
  if image.dtype != np.uint8 or image.shape[1:] != (28, 28) or label.shape != image.shape[:1]:
    raise DataPrepError(
      f'the {name} files must hold N digits, uint8 of 28x28, and N labels, but hold {image.dtype} '
      f'{list(image.shape)} and {list(label.shape)}'
    )
  if label.dtype.kind not in 'iu' or label.min(initial=0) < 0 or label.max(initial=0) > 9:
    raise DataPrepError(f'the labels of {name} must be whole numbers from 0 to 9')
  label = label.astype(np.uint8)
  return split_of_pictures(ArrayPictures(image[..., None], 'array'), _PREPARE, label=label)


def _base(name: str) -> str:
  return name.rsplit('/', 1)[-1]
