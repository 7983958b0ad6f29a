"""CelebA-HQ at 256x256 and 1024x1024: 30,000 faces."""

import pathlib

import numpy as np

from data_prep.core import views
from data_prep.core.contents import Contents, View
from data_prep.core.request import About, Request
from data_prep.errors import DataPrepError
from data_prep.raw import archives, locate, parts, pictures, recognise, tfds_folders
from data_prep.raw.collection import Collection
from data_prep.raw.pictures import EncodedPictures, RecordPictures
from data_prep.raw.preparation import Preparation, picture_set, split_of_pictures

COUNT = 30_000
GLOW_COUNTS = {'train': 27_000, 'validation': 3_000}
_NOTE = ' (the original is unseeded)'


def _about(size: int) -> About:
  return About(
    records=f'{size}x{size}x3',
    splits='all 30000; views efficient_vdvae/{train,valid,test} (valid = test)'
    + (', from GLOW records nvae/{train,test} instead' if size == 256 else ''),
    built='5 GB' if size == 256 else '75 GB',
    licence="CC BY-NC 4.0 on top of CelebA's terms; do not redistribute",
    samples_publishable=False,
    tfds=f'celeb_a_hq/{size}',
    fetch=f'get data{size}x{size}.tar or data1024x1024.zip (PNG files)'
    + (", or GLOW's celeba-tfr.tar (NVAE)" if size == 256 else ''),
    asks_first=True,
  )


ABOUT = {f'celebahq{size}': _about(size) for size in (256, 1024)}


def load(request: Request) -> Contents:
  """Reads a tar, zip or folder of PNGs (256 or 1024 px), GLOW's TFRecords (256), or TFDS.

  Raises:
    DataPrepError: missing or damaged files, JPEG re-hosts, or other counts.
  """
  about, size = ABOUT[request.name], int(request.name.removeprefix('celebahq'))
  path = parts.one(locate.locate(request, about), request.name)
  faces, order, views_of_papers = _open(path, request.name)
  count_line = parts.check_count('pictures', len(faces.names), COUNT)
  raw = faces.read(0).shape[0]
  if raw not in (size, 1024):
    raise DataPrepError(f'{path} holds pictures of {raw} px, but must hold {size} or 1024 px')
  prepare = Preparation(size, source=(raw, raw))
  from_glow = 'nvae/train' in views_of_papers
  return picture_set(
    about,
    prepare,
    source=f'CelebA-HQ from {faces.kind}',
    variant='glow' if from_glow else 'png',
    splits={'all': split_of_pictures(faces, prepare, order)},
    views={'all': View('all', 'all'), **views_of_papers},
    container=faces.kind,
    published=locate.check_published((path,), about, request.unverified),
    checks=(
      count_line,
      '[note] split by shard, as NVAE does it'
      if from_glow
      else '[warn] split not recoverable from the original (unseeded); using RandomState(0)',
    ),
  )


def make_views() -> dict[str, View]:
  """Returns Efficient-VDVAE's views, for pictures in the order of their sorted names."""
  train, valid = views.tail_of_permutation('all', COUNT, 0, 3000, _NOTE)
  return {
    'efficient_vdvae/train': train,
    'efficient_vdvae/valid': valid,
    'efficient_vdvae/test': valid,
  }


def _open(path: pathlib.Path, name: str) -> tuple[Collection, np.ndarray | None, dict[str, View]]:
  """Returns the pictures, their order (None: as stored), and the views of papers."""
  kind = recognise.container_of(path)
  if kind == 'tfds':
    records = tfds_folders.open_split(path, 'train')
    names = [_filename(records, index, path) for index in range(len(records.names))]
    return records, np.argsort(names), make_views()
  if kind in ('folder', 'tar') and (records := _open_glow(path, name)):
    train = GLOW_COUNTS['train']
    return (
      records,
      None,
      {
        'nvae/train': views.span('all', 0, train),
        'nvae/test': views.span('all', train, train + GLOW_COUNTS['validation']),
      },
    )
  faces = pictures.only_png(pictures.open_pictures(path), ABOUT[name].fetch)
  if isinstance(faces, EncodedPictures) and len(set(map(_stem, faces.names))) < len(faces.names):
    raise DataPrepError(f'{path} holds several pictures of one name; give one size only')
  return faces, None, make_views()


def _filename(records: RecordPictures, index: int, path: pathlib.Path) -> bytes:
  example = records.example(index)
  if 'image/filename' not in example:
    raise DataPrepError(f'{path} has no feature image/filename, without which the order is lost')
  return example['image/filename'][0]


def _open_glow(path: pathlib.Path, name: str) -> RecordPictures | None:
  """Opens the shards `train/train-r08-s-...`, then those of `validation`; None without them."""
  archive = archives.open_archive(path)
  indices = [
    tuple(i for i, n in enumerate(archive.names) if f'{part}-r08-' in n) for part in GLOW_COUNTS
  ]
  if not all(indices):
    return None
  if name != 'celebahq256':
    raise DataPrepError(f'{path} holds 256x256 records, from which {name} cannot be built')
  for (part, expected), members in zip(GLOW_COUNTS.items(), indices, strict=True):
    count = len(pictures.open_records(archive, members).names)
    parts.check_count(f'pictures in {part}', count, expected)
  return pictures.open_records(archive, (*indices[0], *indices[1]))


def _stem(name: str) -> str:
  return pathlib.PurePosixPath(name).stem
