"""CLEVRTEX, textured scenes with masks: full, pbg, vbg, grassbg, camo or outd, at 128x128."""

from collections.abc import Iterator, Mapping
import dataclasses
import io
import json
import pathlib
import re

import numpy as np
from PIL import Image

from data_prep.core import factors, views
from data_prep.core.contents import Contents, Example, Split, View
from data_prep.core.request import About, Request
from data_prep.errors import DataPrepError
from data_prep.raw import archives, locate, parts, pictures
from data_prep.raw.preparation import Preparation

_SITE = 'https://www.robots.ox.ac.uk/~vgg/data/clevrtex/'
VARIANTS = ('full', 'pbg', 'vbg', 'grassbg', 'camo', 'outd')
COUNTS = {'full': 50_000, 'outd': 10_000}  # the others: 20,000
ENTITIES = 11
_FACTORS = ('material', 'shape', 'size')  # given as names in the metadata
_SIZE = 128
_BOX = (64, 24, 256, 216)  # left, upper, right, lower: the middle 0.8 of the height
_SHRINK = Preparation(_SIZE, (240, 320), _BOX, 'bilinear')
_SHRINK_ENTITIES = dataclasses.replace(_SHRINK, kernel='nearest', channels=1)
_NAME = re.compile(r'CLEVRTEX_(\w+?)_(\d{6})(_flat)?\.(png|json)')
ABOUT = About(
  records='128x128x3, segmentation, factors',
  splits='all 50000 (outd 10000, others 20000); views test 10 %, valid 10 %, train 80 %, by number',
  built='4 GB',
  licence='CC BY 4.0 by the project page; read it there',
  samples_publishable=True,
  fetch=f'get the parts of a variant from {_SITE}',
  variants=VARIANTS,
  asks_first=True,
)


@dataclasses.dataclass(frozen=True)
class _SceneFiles:
  """Files of each scene, and its examples.

  Attributes:
    opened: the archives.
    members: for each scene, (archive, member) of its picture, its entities and its metadata.
    names: factor -> sorted names of its values; value n is the nth name, from 1 on.
  """

  opened: tuple[archives.Archive, ...]
  members: tuple[tuple[tuple[int, int], ...], ...]
  names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

  def file(self, scene: int, which: int) -> tuple[bytes, str]:
    """Reads one of the three files of a scene; returns its bytes and its name."""
    archive, member = self.members[scene][which]
    opened = self.opened[archive]
    return opened.read(member), f'{opened.path}: {opened.names[member]}'

  def metadata(self, scene: int) -> tuple[dict, list[dict]]:
    """Reads the properties of the ground, and of each object."""
    data, origin = self.file(scene, 2)
    try:
      scene_facts = json.loads(data)
      ground = {'material': scene_facts['ground_material']}
      objects = scene_facts['objects']
    except (ValueError, KeyError, TypeError) as error:
      raise DataPrepError(
        f'{origin} must be json with ground_material and objects ({error!r}); download it again'
      ) from error
    if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
      raise DataPrepError(
        f'{origin} must hold a list of objects with properties; download it again'
      )
    if len(objects) >= ENTITIES:
      raise DataPrepError(
        f'{origin} lists {len(objects)} objects, but a scene has {ENTITIES - 1} at most; the '
        'file is of another data set'
      )
    return ground, objects

  def __call__(self, start: int, stop: int) -> Iterator[Example]:
    for scene in range(start, stop):
      (image, origin), (flat, flat_origin) = self.file(scene, 0), self.file(scene, 1)
      yield {
        'image': _SHRINK(pictures.decode(image, origin, convert=True), origin),
        'segmentation': _SHRINK_ENTITIES(_read_entities(flat, flat_origin), flat_origin),
        **self._factors(scene),
      }

  def _factors(self, scene: int) -> Example:
    ground, objects = self.metadata(scene)
    entities = []
    for entity in (ground, *objects):
      row = {
        name: self.names[name].index(str(entity[name])) + 1 for name in _FACTORS if name in entity
      }
      if isinstance(entity.get('rotation'), int | float):
        row['rotation'] = entity['rotation']
      entities.append(row)
    return factors.pack('clevrtex', ENTITIES, entities)


def load(request: Request) -> Contents:
  """Reads folders, zips or tars with pictures, `_flat` pictures and metadata of one variant.

  Raises:
    DataPrepError: files are missing or damaged, there are several variants and none is named, or
      the numbers of the scenes have a gap.
  """
  paths = locate.locate(request, ABOUT)
  opened = tuple(archives.open_archive(path) for path in paths)
  variant, scenes = _index(opened, request.variant)
  count = len(scenes.members)
  scenes = dataclasses.replace(scenes, names=_names(scenes))
  return factors.object_set(
    ABOUT,
    'clevrtex',
    _SIZE,
    ENTITIES,
    categories=scenes.names,
    splits={'all': Split(count, scenes)},
    views=make_views(count, variant),
    source=f'CLEVRTEX {variant} from {opened[0].kind}',
    preprocessing=f'box {_BOX} (left, upper, right, lower); resized to {_SIZE} px by Pillow, '
    'pictures bilinear, entity numbers nearest',
    container=opened[0].kind,
    published=locate.check_published(paths, ABOUT, request.unverified),
    checks=(parts.check_count('scenes', count, COUNTS.get(variant, 20_000), certain=False),),
    variant=variant,
    records_per_shard=4096,
  )


def make_views(count: int, variant: str) -> dict[str, View]:
  """Splits by number: first tenth test, second tenth valid, the rest train; outd has only test."""
  if variant == 'outd':
    return {'test': View('all', 'the whole set')}
  first, second = int(count * 0.1), int(count * 0.2)
  return {
    'test': views.span('all', 0, first),
    'valid': views.span('all', first, second),
    'train': views.span('all', second, count),
  }


def _index(opened: tuple[archives.Archive, ...], variant: str | None) -> tuple[str, _SceneFiles]:
  """Returns the variant, and the files of its scenes."""
  variants: dict[str, dict[int, dict[str, tuple[int, int]]]] = {}
  for number, archive in enumerate(opened):
    for member, name in enumerate(archive.names):
      if match := _NAME.fullmatch(pathlib.PurePosixPath(name).name):
        label, scene, flat, suffix = match.groups()
        role = 'json' if suffix == 'json' else 'flat' if flat else 'png'
        files = variants.setdefault(label, {}).setdefault(int(scene), {})
        files[role] = (number, member)
  where = ', '.join(str(archive.path) for archive in opened)
  if variant is None and len(variants) == 1:
    (variant,) = variants
  if variant not in variants or variant not in VARIANTS:
    raise DataPrepError(
      f'{where} must hold files CLEVRTEX_<variant>_<6 digits>.png of one variant, or '
      f'--variant=V must name one of {", ".join(VARIANTS)}; there are: '
      f'{", ".join(sorted(variants)) or "none"}'
    )
  scenes = variants[variant]
  for number in range(max(scenes) + 1):
    missing = {'png', 'flat', 'json'} - scenes.get(number, {}).keys()
    if missing:
      raise DataPrepError(
        f'{where}: scene {number:06d} of {variant} lacks its {" and ".join(sorted(missing))}; '
        'give all parts with --raw=PATH'
      )
  members = tuple(
    tuple(scenes[number][role] for role in ('png', 'flat', 'json')) for number in sorted(scenes)
  )
  return variant, _SceneFiles(opened, members)


def _names(scenes: _SceneFiles) -> dict[str, tuple[str, ...]]:
  """Collects the names of the values of each factor in `_FACTORS`, sorted."""
  names = {factor: set() for factor in _FACTORS}
  for scene in range(len(scenes.members)):
    ground, objects = scenes.metadata(scene)
    for entity in (ground, *objects):
      for factor in _FACTORS:
        if factor in entity:
          names[factor].add(str(entity[factor]))
  return {factor: tuple(sorted(values)) for factor, values in names.items()}


def _read_entities(data: bytes, origin: str) -> np.ndarray:
  """Reads the `_flat` picture: entity numbers, uint8 [H, W, 1]."""
  try:
    with Image.open(io.BytesIO(data), formats=('PNG',)) as image:
      numbers = np.asarray(image)
  except Exception as error:  # damage shows as many types
    raise DataPrepError(f'{origin} cannot be read as a picture: {error}') from error
  if numbers.ndim != 2 or numbers.min() < 0 or numbers.max() >= ENTITIES:
    raise DataPrepError(
      f'{origin} must hold entity numbers from 0 to {ENTITIES - 1}, one per pixel, but is '
      f'{numbers.dtype} {list(numbers.shape)} with values to {numbers.max()}'
    )
  return numbers.astype(np.uint8)[..., np.newaxis]
