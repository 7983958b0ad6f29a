"""ImageNet 32x32 and 64x64 as van den Oord made it: the set of published bits/dim.

The sets `imagenet32_box` and `imagenet64_box` were shrunk another way; likelihoods of the two must
not be compared.
"""

from collections.abc import Mapping
import dataclasses
import pathlib

from data_prep.core import views
from data_prep.core.contents import Contents, Split, View
from data_prep.core.request import About, RemoteFile, Request
from data_prep.errors import DataPrepError
from data_prep.raw import archives, locate, parts, pictures, recognise, tfds_folders
from data_prep.raw.collection import Collection
from data_prep.raw.preparation import Preparation, picture_set, split_of_pictures

_SITE = 'http://image-net.org/small/'  # withdrawn
_HASHES = {  # (size, split) -> bytes, SHA-256
  (32, 'train'): (
    4_113_018_880,
    '244a323d48f8d72f65ad8b54658c01fed68d2d7bdc77ccb43da58c11e94224e5',
  ),
  (32, 'valid'): (161_474_560, '862e559462b24cf736212a19f6b0d47b55c2dc8ebdaa95ccecfe71260124c8f7'),
  (64, 'train'): (
    12_112_588_800,
    'e2a2c1947a748d0d256e98e6d82800d855441dc9e4de2e71a773f1324c4524d7',
  ),
  (64, 'valid'): (477_255_680, 'eeac03ec4f585baf871d2b4cb9c974bfe345e74878a74e5820fe6eb1041629cd'),
}
COUNTS = {'train': 1_281_149, 'valid': 49_999}
GLOW_COUNTS = {'train': 1_281_147, 'valid': 50_000}
BOX_COUNTS = {'train': 1_281_167, 'valid': 50_000}
_VARIANT = 'van_den_oord'
_TFDS_SPLITS = {'train': 'train', 'valid': 'validation'}  # split -> name of TFDS
_ROLES = {'train': r'train', 'valid': r'val'}
_SEED = 42
_ORDERS = {  # container -> order that the split is drawn on
  'npy': 'the order of the raw file',
  'tfds': 'the shuffled order of tensorflow-datasets, so its validation set is another one',
}


def _about(size: int) -> About:
  return About(
    records=f'{size}x{size}x3',
    splits='train 1281149, valid 49999; views vdvae/{train,valid,test}, nvae/{train,test}',
    built=f'{1.331e6 * 3 * size**2 / 1e9:.1f} GB',
    licence='ImageNet terms: non-commercial research; do not redistribute',
    samples_publishable=False,
    tfds=f'downsampled_imagenet/{size}x{size}',
    fetch=f'get train_{size}x{size}.tar and valid_{size}x{size}.tar (withdrawn from {_SITE}; on '
    'academic torrents)',
    variants=(_VARIANT,),
    asks_first=True,
  )


ABOUT = {f'imagenet{size}': _about(size) for size in (32, 64)}


def load(request: Request) -> Contents:
  """Reads tars, zips or folders of PNGs, a pair of npy files, GLOW's TFRecords, or TFDS.

  Raises:
    DataPrepError: missing or damaged files, another size, or the box-filtered set.
  """
  about, size = ABOUT[request.name], int(request.name.removeprefix('imagenet'))
  if request.variant not in (None, _VARIANT):
    raise DataPrepError(
      f'--variant={request.variant} does not exist for {request.name}; the only one is {_VARIANT} '
      f'(the box-filtered pictures are the data set {request.name}_box)'
    )
  paths = locate.locate(request, about)
  opened, paths = _open(paths, request)
  known = dataclasses.replace(about, files=_published(size))
  published = locate.check_published(paths, known, request.unverified)
  prepare = Preparation(size, source=(size, size))
  splits = {name: split_of_pictures(images, prepare) for name, images in opened.items()}
  kind = opened['train'].kind
  return picture_set(
    about,
    prepare,
    source=f'ImageNet {size}x{size} of van den Oord from {kind}',
    variant=_VARIANT + ('_shuffled' if kind == 'tfds' else ''),
    splits=splits,
    views=make_views(splits),
    container=kind,
    published=published,
    checks=(
      *_check_counts(opened, request),
      '[warn] the split of the original depends on the unsorted order of its files; here it is '
      f'drawn on {_ORDERS.get(kind, "the order of the sorted names")}',
    ),
  )


def make_views(splits: Mapping[str, Split]) -> dict[str, View]:
  """Returns the whole splits, VDVAE's splits (valid is part of train), and NVAE's."""
  train, valid = views.tail_of_permutation('train', splits['train'].count, _SEED, 5000)
  return {
    **views.whole(splits),
    'vdvae/train': train,
    'vdvae/valid': valid,
    **views.whole(splits, 'vdvae/', test='valid'),
    **views.whole(splits, 'nvae/', train='train', test='valid'),
  }


def _published(size: int) -> tuple[RemoteFile, ...]:
  """Returns the files with known hashes; none of them can be downloaded any more."""
  return tuple(
    RemoteFile(f'{split}_{size}x{size}.tar', _SITE, *_HASHES[size, split]) for split in COUNTS
  )


def _open(
  paths: tuple[pathlib.Path, ...], request: Request
) -> tuple[dict[str, Collection], tuple[pathlib.Path, ...]]:
  """Returns split -> pictures, and the used paths."""
  if any(map(_holds_npz, paths)):
    raw = ' '.join(f'--raw={path}' for path in paths)
    raise DataPrepError(
      f'npz files are the box-filtered pictures, another data set; run: python -m data_prep.build '
      f'{request.name}_box {raw}'
    )
  if len(paths) == 1 and recognise.container_of(paths[0]) == 'tfds':
    if paths[0].parent.parent.name == 'imagenet_resized':
      raise DataPrepError(f'{paths[0]} is box-filtered: build {request.name}_box from it')
    tfds = {name: tfds_folders.open_split(paths[0], split) for name, split in _TFDS_SPLITS.items()}
    return tfds, paths
  if len(paths) == 1 and (records := _open_glow(paths[0], request.name)):
    return records, paths
  used = {role: parts.one(files, role) for role, files in parts.by_role(paths, _ROLES).items()}
  advice = ABOUT[request.name].fetch
  opened = {
    role: pictures.only_png(pictures.open_pictures(path), advice) for role, path in used.items()
  }
  return opened, tuple(used.values())


def _holds_npz(path: pathlib.Path) -> bool:
  kind = recognise.container_of(path)
  if kind not in ('folder', 'zip'):
    return kind == 'npz'
  names = archives.open_archive(path).names
  return any(name.endswith(('.npz', '_npz.zip')) for name in names)


def _open_glow(path: pathlib.Path, name: str) -> dict[str, Collection] | None:
  """Opens the TFRecords `train/train-r05-s-...` and `validation/...`; None without them."""
  if recognise.container_of(path) not in ('folder', 'tar'):
    return None
  archive = archives.open_archive(path)
  level = {'imagenet32': 'r05', 'imagenet64': 'r06'}[name]
  opened = {}
  for role, rule in _ROLES.items():
    indices = tuple(
      i
      for i, member in enumerate(archive.names)
      if f'-{level}-' in member and rule in pathlib.PurePosixPath(member).name
    )
    if not indices:
      return None
    opened[role] = pictures.open_records(archive, indices)
  return opened


def _check_counts(opened: Mapping[str, Collection], request: Request) -> list[str]:
  """Returns lines of the check list about the numbers of pictures."""
  counts = {split: len(images.names) for split, images in opened.items()}
  glow = 'TFRecord' in opened['train'].kind
  boxed = counts == BOX_COUNTS
  unknown = opened['train'].kind == 'npy' and counts != COUNTS
  if not glow and (boxed or unknown) and request.variant is None:
    which = 'the box-filtered set' if boxed else 'neither known set'
    raise DataPrepError(
      f'the raw files hold {counts["train"]:,} and {counts["valid"]:,} pictures, the numbers of '
      f'{which}, while van den Oord has {COUNTS["train"]:,} and {COUNTS["valid"]:,}; add '
      f'--variant={_VARIANT} if they are his all the same'
    )
  expected = GLOW_COUNTS if glow else COUNTS
  return [parts.check_count(f'pictures in {s}', counts[s], expected[s], glow) for s in counts]
