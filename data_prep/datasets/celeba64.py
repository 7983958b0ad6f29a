"""CelebA at 64x64: 202,599 faces, cropped and shrunk as NVAE and Efficient-VDVAE do it."""

import dataclasses
import pathlib

import numpy as np

from data_prep.core import views
from data_prep.core.contents import Contents, Split
from data_prep.core.request import About, RemoteFile, Request
from data_prep.errors import DataPrepError
from data_prep.raw import locate, parts, pictures, recognise, tfds_folders
from data_prep.raw.preparation import Preparation, picture_set, split_of_pictures

_SITE = 'https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html'
COUNTS = {'train': 162_770, 'valid': 19_867, 'test': 19_962}
ABOUT = About(
  records='64x64x3',
  splits='train 162770, valid 19867, test 19962; views nvae/{train,test} (test = valid), '
  'efficient_vdvae/{train,valid,test}',
  built='2.5 GB',
  licence='non-commercial research; do not redistribute',
  samples_publishable=False,
  tfds='celeb_a',
  fetch=f'get img_align_celeba.zip and list_eval_partition.txt from {_SITE}',
  asks_first=True,
)
_PUBLISHED = (
  RemoteFile(
    'img_align_celeba.zip',
    _SITE,
    1_443_490_838,
    '46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74',
  ),
  RemoteFile(
    'list_eval_partition.txt',
    _SITE,
    2_836_386,
    'fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7',
  ),
)
_TFDS_SPLITS = {'train': 'train', 'valid': 'validation', 'test': 'test'}  # split -> name of TFDS
# Attributes and other text files may be beside the pictures.
_ROLES = {'partition': r'partition', 'pictures': r'^(?!.*\.(txt|csv)$).*(img|celeba|jpg|\d)'}
_PREPARE = Preparation(64, source=(218, 178), box=(15, 40, 163, 188))


def load(request: Request) -> Contents:
  """Reads the zip or folder of aligned JPEGs and the partition file, or TFDS.

  Raises:
    DataPrepError: missing or damaged files, a picture without a partition, or other counts.
  """
  paths = locate.locate(request, ABOUT)
  if recognise.container_of(paths[0]) == 'tfds':
    kind = 'tfds'
    splits = {
      name: split_of_pictures(tfds_folders.open_split(paths[0], split), _PREPARE)
      for name, split in _TFDS_SPLITS.items()
    }
  else:
    files = parts.by_role(paths, _ROLES)
    partition = parts.one(files['partition'], 'the partition')
    faces = parts.one(files['pictures'], 'the pictures')
    kind, splits = _split_faces(faces, _read_partition(partition))
    paths = (faces, partition)
  # The hashes of these files are known, though their host refuses programs.
  known = dataclasses.replace(ABOUT, files=_PUBLISHED)
  published = locate.check_published(paths, known, request.unverified)
  return picture_set(
    ABOUT,
    _PREPARE,
    source=f'CelebA, aligned and cropped, from {kind}',
    variant='aligned',
    splits=splits,
    views={
      **views.whole(splits),
      **views.whole(splits, 'nvae/', train='train', test='valid'),
      **views.whole(splits, 'efficient_vdvae/', train='train', valid='valid', test='test'),
    },
    container=kind,
    published=published,
    checks=tuple(parts.check_count(f'pictures in {s}', splits[s].count, COUNTS[s]) for s in splits),
  )


def _read_partition(path: pathlib.Path) -> dict[str, int]:
  """Reads file name -> 0 (train), 1 (valid) or 2 (test)."""
  partition, number = {}, 1
  try:
    for number, line in enumerate(path.read_text('ascii').splitlines(), 1):
      if not line.strip():
        continue
      name, role = line.replace(',', ' ').split()
      if role not in ('0', '1', '2'):
        if number == 1:
          continue  # the header of the csv form
        raise ValueError(f'{role!r} is not 0, 1 or 2')
      partition[pathlib.PurePosixPath(name).stem] = int(role)
  except (UnicodeDecodeError, ValueError) as error:
    raise DataPrepError(
      f'{path} must have lines like `000001.jpg 0`, but line {number} has not: {error}'
    ) from error
  return partition


def _split_faces(path: pathlib.Path, partition: dict[str, int]) -> tuple[str, dict[str, Split]]:
  """Returns the kind of the container and the splits of the pictures in it."""
  faces = pictures.open_pictures(path)
  if not isinstance(faces, pictures.EncodedPictures):
    raise DataPrepError(f'{path} must hold the JPEG files of CelebA, but is: {faces.kind}')
  stems = [pathlib.PurePosixPath(name).stem for name in faces.names]
  without = [stem for stem in stems if stem not in partition]
  absent = partition.keys() - set(stems)
  if without or absent:
    problem = (
      f'{without[0]} is not in the partition file' if without else f'{min(absent)} is missing'
    )
    raise DataPrepError(
      f'{path} and the partition file do not belong together: picture {problem}; {ABOUT.fetch}'
    )
  roles = np.array([partition[stem] for stem in stems])
  return faces.kind, {
    split: split_of_pictures(faces, _PREPARE, np.flatnonzero(roles == role))
    for role, split in enumerate(COUNTS)
  }
