"""32x32, 64x64 and 256x256 colour tiles of 49 photographs inside the package mvtb-data.

The split is by place, never by tile: the pictures of one campus, of a stereo pair and of one tower
are in one split. Its bits/dim must not be compared with those of papers.
"""

import hashlib
import pathlib

import numpy as np

from data_prep.core import sources, views
from data_prep.core.contents import Contents
from data_prep.core.request import About, Request
from data_prep.raw import pictures, tiles
from data_prep.raw.pictures import ArrayPictures
from data_prep.raw.preparation import Preparation, picture_set, split_of_pictures

_PACKAGE = 'mvtb-data'
_WRITTEN_FOR = '1.6.1'
_FOLDER = 'mvtbdata/images'
_SHA256 = '7f43e2c0701fc2f3cd3d663077d1893b2b9e370c3d425eb3549b3919107613e1'
_CAMPUS = (491, *range(493, 502), *range(503, 508), 509, 510, 512, 514, 515)
_HELD_OUT = (492, 502, 508, 511, 513)  # the package's word; they show the same campus

# split -> photographs, in record order
PICTURES = {
  'train': (
    'parks.png',
    'walls-l.png',
    'walls-r.png',
    'roof.png',
    'rocks2-l.png',
    'rocks2-r.png',
    'lab-scene.png',
    'building2-3.png',
    *(f'flowers{number}.png' for number in (1, 2, 3, 4, 6, 7, 8)),
    *(f'campus/P1070{number}.png' for number in _CAMPUS),
    *(f'campus/holdout/P1070{number}.png' for number in _HELD_OUT),
  ),
  'valid': ('church.png', 'road.png', 'tomato_54.png', 'flowers5.png'),
  'test': ('eiffel-1.png', 'eiffel-2.png', 'notre-dame.png', 'butterfly.jpg', 'flowers9.png'),
}


def _about(size: int, counts: str, built: str) -> About:
  return About(
    records=f'{size}x{size}x3',
    splits=f'{counts}, by place',
    built=built,
    licence='package: MIT; the photographs are not itemised',
    samples_publishable=False,
    embedded=True,
  )


ABOUT = {
  'demo_photos32': _about(32, 'train 40892, valid 2640, test 2925', '140 MB'),
  'demo_photos64': _about(64, 'train 10046, valid 650, test 715', '135 MB'),
  'demo_photos256': _about(256, 'train 512, valid 34, test 35', '83 MB'),
}


def load(request: Request) -> Contents:
  """Cuts the photographs into tiles, picture by picture, row by row.

  Raises:
    DataPrepError: the package is not installed, or a photograph is missing or unreadable.
  """
  about, size = ABOUT[request.name], int(request.name.removeprefix('demo_photos'))
  paths = {name: _locate(name) for group in PICTURES.values() for name in group}
  version = sources.package_version(_PACKAGE)
  prepare = Preparation(size, source=(size, size))
  splits = {
    split: split_of_pictures(_cut([paths[name] for name in group], size), prepare)
    for split, group in PICTURES.items()
  }
  files = {'photographs, one after another': _hash(tuple(paths.values()))}
  return picture_set(
    about,
    prepare,
    source=f'{len(paths)} colour photographs inside the package {_PACKAGE} {version}',
    details={'photographs': {split: list(group) for split, group in PICTURES.items()}},
    variant='tiles',
    splits=splits,
    views=views.whole(splits),
    container=f'{len(paths)} PNG and JPEG files in {_PACKAGE} {version}',
    published=(files, sources.check_files(files, dict.fromkeys(files, _SHA256))),
    preprocessing=tiles.RULE,
    packages={_PACKAGE: version, 'pillow': sources.package_version('pillow')},
  )


def _locate(name: str) -> pathlib.Path:
  return sources.package_file(_PACKAGE, f'{_FOLDER}/{name}', _WRITTEN_FOR)


def _cut(paths: list[pathlib.Path], size: int) -> ArrayPictures:
  decoded = (pictures.decode(path.read_bytes(), str(path), convert=True) for path in paths)
  return ArrayPictures(np.concatenate([tiles.cut_tiles(image, size) for image in decoded]), 'tiles')


def _hash(paths: tuple[pathlib.Path, ...]) -> str:
  """Returns the hex SHA-256 over the bytes of all files."""
  digest = hashlib.sha256()
  for path in paths:
    digest.update(path.read_bytes())
  return digest.hexdigest()
