"""Tetrominoes, Multi-dSprites, CLEVR6 and CLEVR10 with masks.

The gzipped TFRecords have no splits: the first scenes are for training and the next for testing, as
in papers on these sets. EfficientMORL's h5 files are one for training and one for testing. CLEVR
pictures are cropped and resized as in EfficientMORL. It leaves the masks at 192 px; here they are
resized to the size of the pictures.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import pathlib

import numpy as np

from data_prep.core import factors
from data_prep.core.contents import Contents, Example, Split, View
from data_prep.core.request import About, RemoteFile, Request
from data_prep.errors import DataPrepError
from data_prep.raw import locate, parts, recognise
from data_prep.raw.object_scenes import (
  ArrayScenes,
  Layout,
  RecordScenes,
  Scene,
  SceneFile,
  open_group,
)
from data_prep.raw.preparation import Preparation

_BUCKET = 'https://storage.googleapis.com/multi-object-datasets/'
_ZENODO = 'https://doi.org/10.5281/zenodo.4895643'
TEST = 320  # number of scenes that papers evaluate on
_CROP = (64, 29, 256, 221)  # left, upper, right, lower


@dataclasses.dataclass(frozen=True)
class _Set:
  """Facts about a set.

  Attributes:
    family: family of its factors, key of `factors.FAMILIES`.
    folder: folder of its TFRecords in the bucket.
    layouts: name of a TFRecord file -> layout of its scenes. The first one is the default variant.
    pools: split -> (first scene, end) in the TFRecords.
    entities: largest number of entities of a scene, background included; scenes with more are left
      out.
    size: height and width to which CLEVR pictures are resized; None for no resampling.
  """

  family: str
  folder: str
  layouts: Mapping[str, Layout]
  pools: Mapping[str, tuple[int, int]]
  entities: int
  size: int | None = None


def _layout(family: str, image: tuple[int, ...], masks: tuple[int, ...], axis: int = 0) -> Layout:
  """Returns the layout of a family with these shapes; `axis` is that of the entities in masks."""
  count, shapes = masks[axis], {}
  for factor in factors.FAMILIES[family]:
    shapes[factor.name] = factors.shape_of(factor, count)
  if family != 'clevr':
    shapes['color'] = (count, image[-1])
  return Layout(image, masks, axis, shapes)


def _sprites_layout(entities: int, channels: int) -> Layout:
  return _layout('multi_dsprites', (64, 64, channels), (64, 64, entities, 1), axis=2)


_CLEVR = {'clevr_with_masks_train': _layout('clevr', (240, 320, 3), (11, 240, 320, 1))}
_CLEVR_POOLS = {'train': (0, 70_000), 'test': (70_000, 85_000)}
_POOLS = {'train': (0, 60_000), 'test': (60_000, 60_000 + TEST)}
SETS = {
  'tetrominoes': _Set(
    'tetrominoes',
    'tetrominoes',
    {'tetrominoes_train': _layout('tetrominoes', (35, 35, 3), (4, 35, 35, 1))},
    _POOLS,
    entities=4,
  ),
  'multi_dsprites': _Set(
    'multi_dsprites',
    'multi_dsprites',
    {
      'multi_dsprites_colored_on_grayscale': _sprites_layout(6, 3),
      'multi_dsprites_colored_on_colored': _sprites_layout(5, 3),
      'multi_dsprites_binarized': _sprites_layout(4, 1),
    },
    _POOLS,
    entities=6,
  ),
  'clevr6': _Set('clevr', 'clevr_with_masks', _CLEVR, _CLEVR_POOLS, entities=7, size=96),
  'clevr10': _Set('clevr', 'clevr_with_masks', _CLEVR, _CLEVR_POOLS, entities=11, size=128),
}
# Columns of `factors` in the h5 files of CLEVR; other sets have the order of `factors.FAMILIES`.
_CLEVR_COLUMNS = (
  'x',
  'y',
  'z',
  'rotation',
  'size',
  'material',
  'shape',
  'color',
  'visibility',
)


def _about(name: str, records: str, splits: str, built: str, size: int) -> About:
  files = tuple(_remote_file(SETS[name], file, size) for file in SETS[name].layouts)
  return About(
    records=f'{records}, segmentation, factors',
    splits=f'{splits}; views train, valid, test (the first {TEST} scenes of test)',
    built=built,
    licence='Apache-2.0',
    samples_publishable=True,
    files=files[:1],
    fetch=f'get {files[0].url}, or the two h5 files of {_ZENODO}',
    variants=variants_of(name),
    asks_first=size > 10_000_000_000,
  )


def _remote_file(spec: _Set, file: str, size: int | None) -> RemoteFile:
  return RemoteFile(f'{file}.tfrecords', f'{_BUCKET}{spec.folder}/{file}.tfrecords', size)


def variants_of(name: str) -> tuple[str, ...]:
  """Returns the variants of a set, the default first; () if there is only one."""
  names = tuple(file.removeprefix(f'{name}_') for file in SETS[name].layouts)
  return names if len(names) > 1 else ()


ABOUT = {
  'tetrominoes': _about(
    'tetrominoes', '35x35x3', f'train 60000, test {TEST}', '0.3 GB', 300_000_000
  ),
  'multi_dsprites': _about(
    'multi_dsprites', '64x64x3', f'train 60000, test {TEST}', '1 GB', 1_000_000_000
  ),
  'clevr6': _about('clevr6', '96x96x3', 'train and test of the pools', '1.6 GB', 10_500_000_000),
  'clevr10': _about('clevr10', '128x128x3', 'train 70000, test 15000', '5.6 GB', 10_500_000_000),
}


@dataclasses.dataclass(frozen=True)
class SceneExamples:
  """Examples of the scenes `numbers`, increasing, of a file."""

  scenes: SceneFile
  numbers: np.ndarray
  family: str
  entities: int
  size: int | None

  def __call__(self, start: int, stop: int) -> Iterator[Example]:
    numbers = self.numbers[start:stop]
    for number, scene in zip(numbers, self.scenes.read(numbers), strict=True):
      yield self.record(scene, f'{self.scenes.path}: scene {number}')

  def record(self, scene: Scene, origin: str) -> Example:
    """Makes the record of a scene: visible entities in order; CLEVR pictures are resized."""
    try:
      segmentation = factors.masks_to_segmentation(scene['masks'])
    except DataPrepError as error:
      raise DataPrepError(f'{origin}: {error}') from error
    present = scene['masks'].any((1, 2, 3))
    present[0] = True  # the background may be hidden
    visible = np.flatnonzero(present)
    if len(visible) > self.entities:
      raise DataPrepError(
        f'{origin} shows {len(visible)} entities, but this set has {self.entities} at most, the '
        'background among them; the raw files are of another data set'
      )
    numbers = np.zeros(len(present), np.uint8)
    numbers[visible] = np.arange(len(visible))
    image = np.broadcast_to(scene['image'], (*scene['image'].shape[:2], 3))
    return {
      **self._pictures(np.ascontiguousarray(image), numbers[segmentation], origin),
      **self._factors(scene, visible),
    }

  def _pictures(self, image: np.ndarray, segmentation: np.ndarray, origin: str) -> Example:
    if self.size is not None:
      shrink = Preparation(self.size, image.shape[:2], _CROP, 'bicubic')
      image = shrink(image, origin)
      segmentation = dataclasses.replace(shrink, kernel='nearest', channels=1)(segmentation, origin)
    return {'image': image, 'segmentation': segmentation}

  def _factors(self, scene: Scene, visible: np.ndarray) -> Example:
    fields = {}
    for factor in factors.FAMILIES[self.family]:
      array = np.zeros(factors.shape_of(factor, self.entities), np.float32)
      array[: len(visible)] = scene[factor.name][visible] if factor.name in scene else np.nan
      fields[f'factor_{factor.name}'] = array
    if 'visibility' not in scene or np.isnan(scene['visibility']).any():
      fields['factor_visibility'] = (np.arange(self.entities) < len(visible)).astype(np.float32)
    return fields


def load(request: Request) -> Contents:
  """Reads the gzipped TFRecords, or the two h5 files.

  Raises:
    DataPrepError: files are missing or damaged, or the variant is unknown; when writing, the masks
      do not assign every pixel to exactly one entity.
  """
  spec = SETS[request.name]
  file = _file_of(request)
  variant = file.removeprefix(f'{request.name}_') if variants_of(request.name) else request.name
  about = ABOUT[request.name]
  about = dataclasses.replace(about, files=(_remote_file(spec, file, about.files[0].bytes),))
  paths = locate.locate(request, about)
  layout = spec.layouts[file]
  if recognise.container_of(paths[0]) == 'tfrecord.gz':
    kind = 'gzipped TFRecords'
    numbers, sources = _split_records(RecordScenes(parts.one(paths, request.name), layout), spec)
  else:
    kind = 'h5'
    numbers, sources = _split_h5(paths, spec, layout)
  published = locate.check_published(paths, about, request.unverified)
  splits = {
    split: Split(
      len(numbers[split]),
      SceneExamples(sources[split], numbers[split], spec.family, spec.entities, spec.size),
    )
    for split in numbers
  }
  side = spec.size or layout.image[0]
  return factors.object_set(
    about,
    spec.family,
    side,
    spec.entities,
    splits=splits,
    views=make_views(splits['test'].count),
    source=f'{request.name} from {kind}',
    preprocessing=_preprocessing(spec),
    variant=variant,
    container=kind,
    published=published,
    checks=(
      *_column_lines(kind, spec),
      '[ok] every pixel belongs to exactly one entity',
    ),
    records_per_shard=min(16384, 2**28 // (4 * side**2)),
  )


def make_views(test: int) -> dict[str, View]:
  """Returns train; the first `TEST` test scenes as test; the rest, or test again, as valid."""
  first = np.arange(min(test, TEST))
  rest = np.arange(TEST, test)
  rule = f'index >= {TEST}' if len(rest) else f'index < {TEST}, as there are no others'
  return {
    'train': View('train', 'the whole split'),
    'valid': View('test', rule, rest if len(rest) else first),
    'test': View('test', f'index < {TEST}', first),
  }


def _file_of(request: Request) -> str:
  """Returns the name of the TFRecord file of the requested variant."""
  spec = SETS[request.name]
  if request.variant is None:
    return next(iter(spec.layouts))
  file = f'{request.name}_{request.variant}'
  if file not in spec.layouts:
    choices = variants_of(request.name)
    raise DataPrepError(
      f'--variant={request.variant}: {request.name} has '
      + (f'the variants {", ".join(choices)}' if choices else 'no variants')
    )
  return file


def _split_records(
  scenes: RecordScenes, spec: _Set
) -> tuple[dict[str, np.ndarray], dict[str, SceneFile]]:
  """Returns split -> numbers of its scenes, and split -> their file."""
  numbers = {split: np.arange(*pool) for split, pool in spec.pools.items()}
  if spec.family == 'clevr' and spec.entities < scenes.layout.masks[0]:
    stop = max(stop for _, stop in spec.pools.values())
    print(f'{scenes.path.name}: counting the objects of {stop:,} scenes; this takes a while')
    visible = scenes.factor('visibility', stop)[:, 1:].sum(1)
    few = visible <= spec.entities - 1
    numbers = {split: pool[few[pool]] for split, pool in numbers.items()}
    if empty := [split for split, pool in numbers.items() if not len(pool)]:
      raise DataPrepError(
        f'{scenes.path} has no scene of at most {spec.entities - 1} objects for {empty[0]}; the '
        'file is of another data set'
      )
  return numbers, dict.fromkeys(numbers, scenes)


def _split_h5(
  paths: tuple[pathlib.Path, ...], spec: _Set, layout: Layout
) -> tuple[dict[str, np.ndarray], dict[str, ArrayScenes]]:
  """Returns the same as `_split_records`, from the two h5 files."""
  for path in paths:
    if (kind := recognise.container_of(path)) not in ('h5', 'folder'):
      raise DataPrepError(
        f'{path} must be a gzipped TFRecord or an unpacked h5 file with masks, but its content '
        f'is: {kind}'
      )
  files = parts.by_role(paths, {'test': r'test.*\.(h5|hdf5)$', 'train': r'\.(h5|hdf5)$'})
  sources = {
    split: open_group(parts.one(files[split], split), split, _columns(spec), layout.image)
    for split in ('train', 'test')
  }
  return {split: np.arange(len(scenes)) for split, scenes in sources.items()}, sources


def _column_lines(kind: str, spec: _Set) -> tuple[str, ...]:
  if kind != 'h5' or spec.family == 'clevr':
    return ()
  return (
    f'[warn] columns of the factors, if any, are taken for {", ".join(_columns(spec))}; their '
    'order was not published',
  )


def _columns(spec: _Set) -> dict[str, tuple[int, ...]]:
  """Returns factor -> its columns in `factors` of an h5 file."""
  if spec.family == 'clevr':
    return {name: (column,) for column, name in enumerate(_CLEVR_COLUMNS)}
  columns, start = {}, 0
  for factor in factors.FAMILIES[spec.family]:
    columns[factor.name] = tuple(range(start, start + factor.width))
    start += factor.width
  return columns


def _preprocessing(spec: _Set) -> str:
  text = 'masks joined to one entity number per pixel; entities that show no pixel left out'
  if spec.size is None:
    return text + '; no resampling'
  return (
    f'{text}; box left 64, upper 29, right 256, lower 221; resized to {spec.size} px by Pillow, '
    'pictures bicubic, entity numbers nearest'
  )
