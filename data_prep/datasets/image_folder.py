"""Any pictures of your own: the largest centred square of each, resized.

`--variant=size=64,channels=3,valid=0.05,test=0.05,seed=0,kernel=bilinear` sets the size in pixels,
1 (grey) or 3 channels, the fractions of the views valid and test, the seed of their permutation,
and the kernel of Pillow. These are the defaults; each may be left out.
"""

from collections.abc import Mapping

import numpy as np

from data_prep.core.contents import Contents, View
from data_prep.core.request import About, Request
from data_prep.errors import DataPrepError
from data_prep.raw import locate, parts, pictures
from data_prep.raw.preparation import KERNELS, Preparation, picture_set, split_of_pictures

ABOUT = About(
  records='SIZExSIZEx3, or x1',
  splits='all; views train, valid, test by seed',
  built='N * SIZE^2 * 3 bytes',
  licence='that of your pictures',
  samples_publishable=False,
  fetch='any folder, zip or tar of picture files, or an npy uint8 [N, H, W, C]',
  variants=('size=64,channels=3,valid=0.05,test=0.05,seed=0,kernel=bilinear',),
)
_DEFAULTS = {
  'size': 64,
  'channels': 3,
  'valid': 0.05,
  'test': 0.05,
  'seed': 0,
  'kernel': 'bilinear',
}


def load(request: Request) -> Contents:
  """Reads the pictures in the order of their sorted names.

  Raises:
    DataPrepError: there are too few pictures, one is damaged, or an option is unknown.
  """
  options = parse_options(request.variant)
  path = parts.one(locate.locate(request, ABOUT), 'image_folder')
  mode = 'L' if options['channels'] == 1 else 'RGB'
  photos = pictures.open_pictures(path, mode=mode, convert=True)
  prepare = Preparation(
    options['size'],
    source=None,
    box='centre',
    kernel=options['kernel'],
    channels=options['channels'],
  )
  published = locate.check_published((path,), ABOUT, request.unverified)
  split = split_of_pictures(photos, prepare)
  return picture_set(
    ABOUT,
    prepare,
    source=f'pictures in {path.name} ({photos.kind})',
    variant=','.join(f'{key}={value}' for key, value in options.items()),
    splits={'all': split},
    views=make_views(split.count, options),
    container=f'{photos.kind}, {split.count:,} pictures',
    published=published,
  )


def parse_options(text: str | None) -> dict[str, int | float | str]:
  """Parses the options in `--variant`; the others get their defaults.

  Raises:
    DataPrepError: an option is unknown, or its value is wrong.
  """
  options = dict(_DEFAULTS)
  for part in text.split(',') if text else ():
    key, _, value = part.partition('=')
    if key not in _DEFAULTS:
      raise DataPrepError(
        f'--variant={text}: there is no option {key!r}; choose from: {", ".join(_DEFAULTS)}'
      )
    try:
      options[key] = type(_DEFAULTS[key])(value)
    except ValueError as error:
      raise DataPrepError(f'--variant={text}: {key} must be a number, not {value!r}') from error
  _check_options(options)
  return options


def make_views(count: int, options: Mapping[str, int | float | str]) -> dict[str, View]:
  """Splits a seeded permutation of the pictures: first valid, then test, the rest is train."""
  permutation = np.random.RandomState(options['seed']).permutation(count)
  rule = f'numpy.random.RandomState({options["seed"]}).permutation({count})'
  first = round(count * options['valid'])
  second = first + round(count * options['test'])
  if second >= count:
    raise DataPrepError(f'{count} pictures are too few to leave any for training')
  views = {
    'train': View('all', f'{rule}[{second}:]', permutation[second:], options['seed']),
    'valid': View('all', f'{rule}[:{first}]', permutation[:first], options['seed']),
    'test': View('all', f'{rule}[{first}:{second}]', permutation[first:second], options['seed']),
  }
  return {'all': View('all', 'all'), **{n: v for n, v in views.items() if len(v.indices)}}


def _check_options(options: Mapping[str, int | float | str]) -> None:
  if options['channels'] not in (1, 3) or not 1 <= options['size'] <= 4096:
    raise DataPrepError('--variant: channels must be 1 or 3, and size between 1 and 4096')
  if options['kernel'] not in KERNELS:
    raise DataPrepError(f'--variant: kernel must be one of {", ".join(KERNELS)}')
  shares = options['valid'], options['test']
  if not (min(shares) >= 0 and sum(shares) < 1):  # also refuses NaN
    raise DataPrepError('--variant: valid and test must be shares that leave some for training')
  if not 0 <= options['seed'] < 2**32:
    raise DataPrepError('--variant: seed must be between 0 and 2**32 - 1')
