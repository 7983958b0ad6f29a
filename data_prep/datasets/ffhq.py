"""FFHQ at 256x256 and 1024x1024: 70,000 faces.

At 256 px from VDVAE's npy file or shrunk from the PNGs of 1024 px, which is the same function.
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
from data_prep.raw.pictures import EncodedPictures, Pictures
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
_U = 'efficient_vdvae/{train,valid,test} (valid = test), nvae/{train,test}'

ABOUT = {
  'ffhq256': About(
    records='256x256x3',
    splits=f'all 70000; views vdvae/{{train,valid,test}} (valid = test), {_U}',
    built='12 GB',
    licence=_LICENCE,
    samples_publishable=False,
    files=(_NPY,),
    fetch=f'get {_NPY.url} or images1024x1024 of NVlabs/ffhq-dataset',
    asks_first=True,
  ),
  'ffhq1024': About(
    records='1024x1024x3',
    splits=f'all 70000; views vdvae/{{train,valid,test}} (valid = test), {_U}',
    built='175 GB',
    licence=_LICENCE,
    samples_publishable=False,
    files=(_ZIP,),
    fetch='get images1024x1024 (PNG files, 89 GB) of NVlabs/ffhq-dataset',
    asks_first=True,
  ),
}


def load(request: Request) -> Contents:
  """Reads VDVAE's npy (256) or the PNGs of 1024 px in a folder, zip or tar.

  With `ffhq-dataset-v2.json` among the raw files, the MD5 of every picture's pixels is checked.
  With a `train_test_ind.pt` of NVAE's scripts, the views of NVAE are those that it drew.

  Raises:
    DataPrepError: missing or damaged files, JPEG re-hosts, thumbnails, or other counts.
  """
  about, size = ABOUT[request.name], int(request.name.removeprefix('ffhq'))
  paths = locate.locate(request, about)
  metadata = [path for path in paths if recognise.container_of(path) == 'json']
  drawn = [path for path in paths if index_files.is_index_file(path)]
  path = parts.one(tuple(p for p in paths if p not in (*metadata, *drawn)), request.name)
  found = pictures.originals(
    pictures.open_pictures(path), 'get the PNG files of NVlabs/ffhq-dataset'
  )
  numbers = _numbers(found)
  count = parts.check_count('pictures', len(found.names), COUNT)
  raw = _check_form(found, path, size)
  order = np.argsort(numbers)
  md5 = _read_metadata(metadata[0], np.sort(numbers)) if metadata and raw == 1024 else ()
  prepare = Preparation(size, source=(raw, raw))
  files, hash_lines = locate.check_published(paths, about, request.unverified)
  return picture_set(
    about,
    prepare,
    source=f'FFHQ from {found.kind}',
    variant='ffhq',
    splits={'all': split_of_pictures(found, prepare, order, md5)},
    views=make_views(size, drawn[0] if drawn else None),
    files=files,
    checks=(
      f'[ok] container: {found.kind}',
      *hash_lines,
      count,
      _describe_md5(len(md5), raw),
      '[warn] split not recoverable from the original (unseeded) for efficient_vdvae'
      + ('' if drawn else ' and nvae')
      + '; using RandomState(0)',
    ),
  )


def make_views(size: int, drawn: pathlib.Path | None = None) -> dict[str, View]:
  """VDVAE's split for this size, and one of ours for the papers that drew theirs unseeded.

  Args:
    size: of the pictures, px.
    drawn: the file in which NVAE's scripts saved theirs.

  Raises:
    DataPrepError: that file is damaged, or does not deal out 70,000 pictures.
  """
  if size == 256:
    train, valid = views.tail_of_permutation('all', COUNT, 5, HELD_OUT)
  else:
    train, valid = views.span('all', 0, TRAIN_1024), views.span('all', TRAIN_1024, COUNT)
  our_train, our_valid = views.tail_of_permutation('all', COUNT, 0, HELD_OUT, _NOTE)
  nvae_train, nvae_test = our_train, our_valid
  if drawn:
    lists = index_files.read_split(drawn, COUNT, HELD_OUT)
    nvae_train, nvae_test = (View('all', f'as drawn in {drawn.name}', one) for one in lists)
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


def _check_form(found: Pictures, path: pathlib.Path, size: int) -> int:
  """Height and width of the raw pictures."""
  raw = found.read(0).shape[0]
  shrunk_by_others = isinstance(found, EncodedPictures) and raw != 1024
  if raw not in (size, 1024) or shrunk_by_others:
    raise DataPrepError(
      f'{path} holds pictures of {raw} px, but ffhq{size} is made from 1024 px'
      + (' or from the npy of 256 px' if size == 256 else '')
    )
  return raw


def _numbers(found: Pictures) -> np.ndarray:
  """The number of each picture: of its file name, `00000/00017.png` or `00017.png`."""
  if not isinstance(found, EncodedPictures):
    return np.arange(len(found.names))
  stems = [pathlib.PurePosixPath(name).stem for name in found.names]
  odd = [stem for stem in stems if not re.fullmatch(r'\d{5}', stem)]
  numbers = sorted(int(stem) for stem in stems if stem not in odd)
  if odd or numbers != list(range(len(stems))):
    raise DataPrepError(
      f'{found.archive.path} must hold files 00000.png to 69999.png, but '
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
  """The MD5 of the pixels of each of these pictures."""
  try:
    entries = json.loads(path.read_bytes())
    return tuple(entries[str(number)]['image']['pixel_md5'] for number in numbers.tolist())
  except (ValueError, KeyError, TypeError) as error:
    raise DataPrepError(
      f'{path} must be ffhq-dataset-v2.json, with image.pixel_md5 of every picture ({error!r})'
    ) from error
