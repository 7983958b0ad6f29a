"""FFHQ at 256x256 and 1024x1024: 70,000 faces.

The set at 256 px is VDVAE's npy file, or the PNGs of 1024 px resized in the same way.
"""

import json
import pathlib
import re

import numpy as np

from data_prep.core import views
from data_prep.core.contents import Contents, View
from data_prep.core.request import About, RemoteFile, Request
from data_prep.errors import DataPrepError
from data_prep.raw import index_files, locate, parts, pictures, recognise
from data_prep.raw.collection import Collection
from data_prep.raw.pictures import EncodedPictures
from data_prep.raw.preparation import Preparation, picture_set, split_of_pictures

COUNT = 70_000
HELD_OUT = 7_000
TRAIN_1024 = 65_000  # the first ones, in VDVAE's split at 1024 px
_NPY = RemoteFile(
  'ffhq-256.npy',
  'https://openaipublic.blob.core.windows.net/very-deep-vaes-assets/vdvae-assets/ffhq-256.npy',
  13_762_560_128,
)
_ZIP = RemoteFile(
  'images1024x1024.zip', 'https://archive.org/download/ffhq-dataset/images1024x1024.zip'
)
_LICENCE = 'collection CC BY-NC-SA 4.0; single images CC BY, CC BY-NC, CC0, PDM or US-Gov'
_NOTE = ' (the original is unseeded)'


def _about(size: int, built: str, file: RemoteFile, fetch: str) -> About:
  return About(
    records=f'{size}x{size}x3',
    splits='all 70000; views vdvae/{train,valid,test} and efficient_vdvae/{train,valid,test} '
    '(valid = test), nvae/{train,test}',
    built=built,
    licence=_LICENCE,
    samples_publishable=False,
    files=(file,),
    fetch=f'get {fetch} of NVlabs/ffhq-dataset',
    asks_first=True,
  )


ABOUT = {
  'ffhq256': _about(256, '12 GB', _NPY, f'{_NPY.url} or images1024x1024'),
  'ffhq1024': _about(1024, '175 GB', _ZIP, 'images1024x1024 (PNG files, 89 GB)'),
}


def load(request: Request) -> Contents:
  """Reads VDVAE's npy (256) or the PNGs of 1024 px in a folder, zip or tar.

  If `ffhq-dataset-v2.json` is among the raw files, the MD5 of every picture's pixels is checked. If
  a `train_test_ind.pt` of NVAE's scripts is among them, it gives the views of NVAE.

  Raises:
    DataPrepError: files are missing or damaged, are JPEG copies or thumbnails, or their number is
      wrong.
  """
  about, size = ABOUT[request.name], int(request.name.removeprefix('ffhq'))
  paths = locate.locate(request, about)
  metadata = [path for path in paths if recognise.container_of(path) == 'json']
  index_file = [path for path in paths if index_files.is_index_file(path)]
  path = parts.one(tuple(p for p in paths if p not in (*metadata, *index_file)), request.name)
  faces = pictures.only_png(
    pictures.open_pictures(path), 'get the PNG files of NVlabs/ffhq-dataset'
  )
  numbers = _numbers(faces)
  count_line = parts.check_count('pictures', len(faces.names), COUNT)
  raw = _raw_size(faces, path, size)
  order = np.argsort(numbers)
  md5 = _read_metadata(metadata[0], np.sort(numbers)) if metadata and raw == 1024 else ()
  prepare = Preparation(size, source=(raw, raw))
  return picture_set(
    about,
    prepare,
    source=f'FFHQ from {faces.kind}',
    variant='ffhq',
    splits={'all': split_of_pictures(faces, prepare, order, md5)},
    views=make_views(size, index_file[0] if index_file else None),
    container=faces.kind,
    published=locate.check_published(paths, about, request.unverified),
    checks=(
      count_line,
      _describe_md5(len(md5), raw),
      '[warn] split not recoverable from the original (unseeded) for efficient_vdvae'
      + ('' if index_file else ' and nvae')
      + '; using RandomState(0)',
    ),
  )


def make_views(size: int, index_file: pathlib.Path | None = None) -> dict[str, View]:
  """Returns VDVAE's split for this size, and our split for papers whose split was unseeded.

  Args:
    size: height and width of the pictures, px.
    index_file: file in which NVAE's scripts saved their split.

  Raises:
    DataPrepError: that file is damaged, or does not partition 70,000 pictures.
  """
  if size == 256:
    train, valid = views.tail_of_permutation('all', COUNT, 5, HELD_OUT)
  else:
    train, valid = views.span('all', 0, TRAIN_1024), views.span('all', TRAIN_1024, COUNT)
  our_train, our_valid = views.tail_of_permutation('all', COUNT, 0, HELD_OUT, _NOTE)
  nvae_train, nvae_test = our_train, our_valid
  if index_file:
    lists = index_files.read_split(index_file, COUNT, HELD_OUT)
    rule = f'as drawn in {index_file.name}'
    nvae_train, nvae_test = (View('all', rule, indices) for indices in lists)
  return {
    'all': View('all', 'all'),
    'vdvae/train': train,
    'vdvae/valid': valid,
    'vdvae/test': valid,
    'efficient_vdvae/train': our_train,
    'efficient_vdvae/valid': our_valid,
    'efficient_vdvae/test': our_valid,
    'nvae/train': nvae_train,
    'nvae/test': nvae_test,
  }


def _raw_size(faces: Collection, path: pathlib.Path, size: int) -> int:
  """Returns the height and width of the raw pictures; raises DataPrepError if they are resized."""
  raw = faces.read(0).shape[0]
  shrunk_by_others = isinstance(faces, EncodedPictures) and raw != 1024
  if raw not in (size, 1024) or shrunk_by_others:
    raise DataPrepError(
      f'{path} holds pictures of {raw} px, but ffhq{size} is made from 1024 px'
      + (' or from the npy of 256 px' if size == 256 else '')
    )
  return raw


def _numbers(faces: Collection) -> np.ndarray:
  """Returns the number of each picture from its file name, `00000/00017.png` or `00017.png`."""
  if not isinstance(faces, EncodedPictures):
    return np.arange(len(faces.names))
  stems = [pathlib.PurePosixPath(name).stem for name in faces.names]
  odd = [stem for stem in stems if not re.fullmatch(r'\d{5}', stem)]
  numbers = sorted(int(stem) for stem in stems if stem not in odd)
  if odd or numbers != list(range(len(stems))):
    raise DataPrepError(
      f'{faces.archive.path} must hold files 00000.png to 69999.png, but '
      + (f'has one called {odd[0]}' if odd else 'has gaps or several of one name')
    )
  return np.array([int(stem) for stem in stems])


def _describe_md5(count: int, raw: int) -> str:
  if count:
    return f'[ok] pixel_md5 of {count} pictures compared while writing'
  if raw != 1024:
    return '[note] pixels are not compared: nobody published a hash of them'
  return '[note] pixels are not compared; add --raw=ffhq-dataset-v2.json to do so'


def _read_metadata(path: pathlib.Path, numbers: np.ndarray) -> tuple[str, ...]:
  """Reads the MD5 of the pixels of the pictures with these numbers."""
  try:
    entries = json.loads(path.read_bytes())
    return tuple(entries[str(number)]['image']['pixel_md5'] for number in numbers.tolist())
  except (ValueError, KeyError, TypeError) as error:
    raise DataPrepError(
      f'{path} must be ffhq-dataset-v2.json, with image.pixel_md5 of every picture ({error!r})'
    ) from error
