"""ImageNet 32x32 and 64x64 shrunk by a box filter (Chrabaszcz): the set of Efficient-VDVAE.

The published bits/dim of other papers are on van den Oord's pictures, `imagenet32` and
`imagenet64`; likelihoods of the two must not be compared.
"""

from data_prep.core import views
from data_prep.core.contents import Contents
from data_prep.core.request import About, RemoteFile, Request
from data_prep.errors import DataPrepError
from data_prep.raw import locate, parts, planar, recognise, tfds_folders
from data_prep.raw.preparation import Preparation, picture_set, split_of_pictures

_SITE = 'https://image-net.org/data/downsample/'
_VARIANT = 'box'
COUNTS = {'train': 1_281_167, 'valid': 50_000}
_FILES = {
  32: (
    (
      'Imagenet32_train_npz.zip',
      3_580_435_279,
      '94226337ecc1b0309d9fcd0167127aaadc931587035fbcb53925235edbaec4fc',
    ),
    (
      'Imagenet32_val_npz.zip',
      139_697_668,
      '013990e6dec1237dcd1f9beadbab81ead6604cc119af5cacbfb59ae28148377a',
    ),
  ),
  64: (
    (
      'Imagenet64_train_part1_npz.zip',
      6_783_426_789,
      '9422dc1dc5d092e9814a70a1cb7fc74880d2db5d88a0cb8a34ee363b12bde3f1',
    ),
    (
      'Imagenet64_train_part2_npz.zip',
      6_780_506_068,
      '9fafc115afb7e6c301e66dc16b2d737152b427bd5dab26e1293487a6819c7f30',
    ),
    (
      'Imagenet64_val_npz.zip',
      529_522_927,
      'e1e75133158a1924135a9c6f97a80d2d237b158945e0b34074e58e6c8430eeb8',
    ),
  ),
}
_ROLES = {'train': r'train', 'valid': r'val'}
_TFDS_SPLITS = {'train': 'train', 'valid': 'validation'}  # split -> name of TFDS


def _about(size: int) -> About:
  names = ', '.join(name for name, _, _ in _FILES[size])
  return About(
    records=f'{size}x{size}x3',
    splits='train 1281167, valid 50000; views efficient_vdvae/{train,valid,test} (valid = test)',
    built=f'{1.331e6 * 3 * size**2 / 1e9:.1f} GB',
    licence='ImageNet terms: non-commercial research; do not redistribute',
    samples_publishable=False,
    files=tuple(RemoteFile(name, _SITE + name, n, sha256) for name, n, sha256 in _FILES[size]),
    tfds=f'imagenet_resized/{size}x{size}',
    fetch=f'log in at {_SITE} and get {names}',
    variants=(_VARIANT,),
    asks_first=True,
  )


ABOUT = {f'imagenet{size}_box': _about(size) for size in (32, 64)}


def load(request: Request) -> Contents:
  """Reads the zips or folders of npz files, loose npz files, or TFDS.

  Raises:
    DataPrepError: missing or damaged files, another size, or van den Oord's set.
  """
  about = ABOUT[request.name]
  size = int(request.name.removeprefix('imagenet').removesuffix('_box'))
  if request.variant not in (None, _VARIANT):
    raise DataPrepError(
      f'--variant={request.variant} does not exist for {request.name}; the only one is {_VARIANT} '
      f"(van den Oord's pictures are the data set imagenet{size})"
    )
  paths = locate.locate(request, about)
  kind = recognise.container_of(paths[0])
  if kind == 'tfds':
    if paths[0].parent.parent.name == 'downsampled_imagenet':
      raise DataPrepError(f"{paths[0]} is van den Oord's set: build imagenet{size} from it")
    opened = {
      name: tfds_folders.open_split(paths[0], split) for name, split in _TFDS_SPLITS.items()
    }
  else:
    files = parts.by_role(paths, _ROLES)
    opened = {role: planar.open_batches(group, size) for role, group in files.items()}
    paths = tuple(path for group in files.values() for path in group)
  published = locate.check_published(paths, about, request.unverified)
  prepare = Preparation(size, source=(size, size))
  splits = {name: split_of_pictures(batches, prepare) for name, batches in opened.items()}
  return picture_set(
    about,
    prepare,
    source=f'ImageNet {size}x{size}, box-filtered, from {kind}',
    variant=_VARIANT,
    splits=splits,
    views={
      **views.whole(splits),
      **views.whole(splits, 'efficient_vdvae/', train='train', valid='valid', test='valid'),
    },
    container=kind,
    published=published,
    checks=tuple(
      parts.check_count(f'pictures in {s}', split.count, COUNTS[s], certain=False)
      for s, split in splits.items()
    ),
  )
