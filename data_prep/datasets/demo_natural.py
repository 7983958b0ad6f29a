"""32x32 and 64x64 colour tiles of the photographs inside scikit-image and scikit-learn.

The split is by photograph, never by tile, so training and testing share no photograph; the stereo
pair is in one split. `valid` and `test` are everyday photographs, while two fifths of `train` show
stars, tissue and a retina. So bits/dim of this set tell whether training works, but must not be
compared with those of papers.
"""

import pathlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from data_prep.core import sources
from data_prep.core.contents import Contents, Field, View, make_contents, split_of_arrays
from data_prep.core.request import About, Request
from data_prep.errors import DataPrepError
from data_prep.raw.tiles import cut_tiles

_WRITTEN_FOR = {'scikit-image': '0.26.0', 'scikit-learn': '1.9.1'}
_FOLDERS = {'scikit-image': 'skimage/data', 'scikit-learn': 'sklearn/datasets/images'}
_SHA256 = {
  'astronaut.png': '88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5',
  'rocket.jpg': 'c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c',
  'motorcycle_left.png': 'db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179',
  'motorcycle_right.png': '5fc913ae870e42a4b662314bc904d1786bcad8e2f0b9b67dba5a229406357797',
  'hubble_deep_field.jpg': '3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4',
  'ihc.png': 'f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef',
  'retina.jpg': '38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6',
  'chelsea.png': '596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb',
  'coffee.png': 'cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7',
  'china.jpg': '8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29',
  'flower.jpg': 'a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638',
}
_LICENCE = (
  'astronaut, rocket, hubble_deep_field, ihc: public domain or no known restrictions; '
  'chelsea, coffee, retina: CC0; motorcycle: Middlebury 2014 stereo benchmark, no licence '
  'named; china, flower: CC BY 2.0, danielbuechele and vultilion on flickr'
)
# Tiled squares of the two largest pictures: (left, upper, right, lower). Otherwise black sky and
# tissue would be more than half of all tiles.
_BOXES = {'hubble_deep_field.jpg': (0, 0, 512, 512), 'retina.jpg': (150, 450, 662, 962)}

# split -> (package, photograph), in record order
PICTURES = {
  'train': (
    ('scikit-image', 'astronaut.png'),
    ('scikit-image', 'rocket.jpg'),
    ('scikit-image', 'motorcycle_left.png'),
    ('scikit-image', 'motorcycle_right.png'),
    ('scikit-image', 'hubble_deep_field.jpg'),
    ('scikit-image', 'ihc.png'),
    ('scikit-image', 'retina.jpg'),
  ),
  'valid': (('scikit-image', 'chelsea.png'), ('scikit-learn', 'china.jpg')),
  'test': (('scikit-image', 'coffee.png'), ('scikit-learn', 'flower.jpg')),
}


def _about(size: int, counts: str, built: str) -> About:
  return About(
    records=f'{size}x{size}x3',
    splits=f'{counts}, by photograph',
    built=built,
    licence=_LICENCE,
    samples_publishable=True,
    embedded=True,
  )


ABOUT = {
  'demo_natural32': _about(32, 'train 1974, valid 386, test 476', '9 MB'),
  'demo_natural64': _about(64, 'train 470, valid 88, test 114', '8 MB'),
}


def load(request: Request) -> Contents:
  """Cuts the photographs into tiles, picture by picture, row by row.

  Raises:
    DataPrepError: a package is not installed, or a photograph is missing or unreadable.
  """
  size = int(request.name.removeprefix('demo_natural'))
  paths = {name: _locate(package, name) for group in PICTURES.values() for package, name in group}
  tiles = {
    split: np.concatenate([cut_tiles(read_rgb(paths[name]), size) for _, name in group])
    for split, group in PICTURES.items()
  }
  files = {name: sources.sha256_file(path) for name, path in paths.items()}
  versions = {name: sources.package_version(name) for name in _WRITTEN_FOR}
  origin = ' and '.join(f'{name} {version}' for name, version in versions.items())
  pillow = sources.package_version('pillow')
  return make_contents(
    ABOUT[request.name],
    fields={'image': Field('uint8', (size, size, 3))},
    splits={split: split_of_arrays(image=images) for split, images in tiles.items()},
    views={split: View(split, _rule(split)) for split in PICTURES},
    source=f'colour photographs inside the packages {origin}',
    packages={**versions, 'pillow': pillow},
    preprocessing=f'non-overlapping {size}x{size} tiles from the upper left corner, rest '
    f'dropped; of some pictures only a box {_BOXES}; no resampling; JPEGs decoded by '
    f'Pillow {pillow} (another decoder may differ by a grey level)',
    container=f'{len(paths)} PNG and JPEG files in {origin}',
    published=(files, sources.check_files(files, _SHA256)),
  )


def read_rgb(path: pathlib.Path) -> np.ndarray:
  """Reads the tiled part of a photograph, uint8 [height, width, 3]."""
  try:
    with Image.open(path) as image:
      if image.mode != 'RGB':
        raise DataPrepError(f'{path} must be an RGB picture, but its mode is {image.mode}.')
      return np.asarray(image.crop(_BOXES.get(path.name)))
  except (UnidentifiedImageError, OSError) as error:
    raise DataPrepError(f'{path} cannot be read as a picture: {error}.') from error


def _locate(package: str, name: str) -> pathlib.Path:
  return sources.package_file(package, f'{_FOLDERS[package]}/{name}', _WRITTEN_FOR[package])


def _rule(split: str) -> str:
  return 'all tiles of ' + ', '.join(name for _, name in PICTURES[split])
