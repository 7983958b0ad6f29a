"""Fashion-MNIST, 70,000 grey pictures of clothes and shoes in ten classes, 28x28.

The protocol of the published likelihoods (Exemplar VAE, NeurIPS 2020, arXiv 2004.04795): 50,000
pictures to train, 10,000 to validate, 10,000 to test; each training step binarises anew, validation
and test are binarised once. Grey pictures are stored; the binarised ones stand beside them.
"""

import dataclasses
import pathlib

import numpy as np

from data_prep.core import views
from data_prep.core.contents import Contents, Field, Split, View
from data_prep.core.request import About, RemoteFile, Request
from data_prep.raw import idx_files, locate, parts
from data_prep.raw.pictures import ArrayPictures
from data_prep.raw.preparation import Preparation, picture_set, split_of_pictures

DEBIAN = pathlib.Path('/usr/share/datasets/fashion-mnist')  # of the package below
_PACKAGE = 'dataset-fashion-mnist'
_SITE = 'https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/'
SHA256 = {  # of the unpacked files: gzip files differ with the program that packed them
  'train images': 'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888',
  'train labels': 'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9',
  'test images': '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b',
  'test labels': '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34',
}
ABOUT = About(
  records='28x28x1, label',
  splits=(
    'train 60000, test 10000, valid_binarized 10000, test_binarized 10000; '
    'views vae/{train,valid,test}, vae/{valid,test}_binarized'
  ),
  built='71 MB',
  licence='Expat (MIT), Zalando SE',
  samples_publishable=True,
  files=tuple(
    RemoteFile(f'{name}.gz', f'{_SITE}{name}.gz', unpacked_sha256=SHA256[role])
    for role, name in (
      ('train images', 'train-images-idx3-ubyte'),
      ('train labels', 'train-labels-idx1-ubyte'),
      ('test images', 't10k-images-idx3-ubyte'),
      ('test labels', 't10k-labels-idx1-ubyte'),
    )
  ),
  fetch=(
    f'on Debian and Ubuntu: apt-get install {_PACKAGE}; elsewhere get the four idx.gz files from '
    f'{_SITE}'
  ),
)
COUNTS = {'train': 60_000, 'test': 10_000}
NUM_VALID = 10_000
SEED = 0  # of the validation view and of the fixed binarisation
_PREPARE = Preparation(28, source=(28, 28), channels=1)
CLASSES = (
  *('T-shirt/top', 'trouser', 'pullover', 'dress', 'coat'),
  *('sandal', 'shirt', 'sneaker', 'bag', 'ankle boot'),
)


def load(request: Request) -> Contents:
  """Reads the idx files of the Debian package, of the user, or of a download.

  Raises:
    DataPrepError: the files are missing, damaged, or not the published ones.
  """
  if request.source == 'auto' and not request.raw and DEBIAN.is_dir():
    request = dataclasses.replace(request, raw=(DEBIAN,))
  raw = idx_files.read_files(locate.locate(request, ABOUT), ABOUT)
  published = idx_files.check_contents(raw, SHA256, request.unverified)
  grey = {}
  for name in COUNTS:
    image, label = idx_files.parse_split(raw, name)
    grey[name] = image[..., None], idx_files.checked_labels(image, label, name)
  count = len(grey['train'][0])
  train, valid = views.tail_of_permutation('train', count, SEED, NUM_VALID)
  held_out = {
    'valid_binarized': tuple(array[valid.indices] for array in grey['train']),
    'test_binarized': grey['test'],
  }
  splits = {name: _split(image, label) for name, (image, label) in grey.items()}
  for number, (name, (image, label)) in enumerate(held_out.items()):
    splits[name] = _split(binarize(image, SEED + number), label)
  rule = f'numpy.random.RandomState(seed).random_sample([N, 28, 28, 1]) < value / 255; seed {SEED}'
  return picture_set(
    ABOUT,
    _PREPARE,
    source=f'Fashion-MNIST, idx files; classes 0 to 9: {", ".join(CLASSES)}',
    variant='fashion_mnist',
    splits=splits,
    views=make_views(splits, train, valid),
    container='idx',
    published=published,
    checks=tuple(
      parts.check_count(f'pictures in {name}', splits[name].count, COUNTS[name]) for name in COUNTS
    ),
    more_fields={'label': Field('uint8', ())},
    details={
      'classes': list(CLASSES),
      'binarized': {
        'valid_binarized': f'view vae/valid; {rule}',
        'test_binarized': f'view vae/test; {rule} + 1',
      },
    },
  )


def make_views(splits: dict[str, Split], train: View, valid: View) -> dict[str, View]:
  """Returns the whole splits, and those of the published likelihoods as `vae/...`."""
  binarized = {name: name for name in splits if name.endswith('_binarized')}
  return {
    **views.whole(splits, '', train='train', test='test'),
    'vae/train': train,
    'vae/valid': valid,
    **views.whole(splits, 'vae/', test='test', **binarized),
  }


def binarize(image: np.ndarray, seed: int) -> np.ndarray:
  """Draws every pixel as 255 with probability value / 255, else as 0; uint8 of the same shape."""
  white = np.random.RandomState(seed).random_sample(image.shape) < image / 255
  return white.astype(np.uint8) * np.uint8(255)


def _split(image: np.ndarray, label: np.ndarray) -> Split:
  return split_of_pictures(ArrayPictures(image, 'array'), _PREPARE, label=label)
