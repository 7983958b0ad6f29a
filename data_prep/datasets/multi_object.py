"""Tetrominoes, Multi-dSprites, CLEVR6 and CLEVR10 with masks.

The gzipped TFRecords have no splits: the first scenes train and the next are tested, as papers on
these sets do it. The h5 files of EfficientMORL come as one file to train on and one to test on.
CLEVR pictures are cut out and shrunk as EfficientMORL does it; the masks, which it leaves at
192 px, are shrunk with them, so that they fit the pictures.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import pathlib

import numpy as np

from data_prep.core import factors
from data_prep.core.contents import CardInfo, Contents, Example, Split, View
from data_prep.core.request import About, RemoteFile, Request
from data_prep.errors import DataPrepError
from data_prep.raw import locate, parts, recognise
from data_prep.raw.object_scenes import ArrayScenes, Layout, RecordScenes, Scene, Scenes, open_group
from data_prep.raw.preparation import Preparation

_BUCKET = 'https://storage.googleapis.com/multi-object-datasets/'
_ZENODO = 'https://doi.org/10.5281/zenodo.4895643'
TEST = 320  # scenes that papers evaluate on
_CROP = (64, 29, 256, 221)  # left, upper, right, lower


@dataclasses.dataclass(frozen=True)
class _Set:
  """What is known of a set.

  Attributes:
    family: of its factors, key of `factors.FAMILIES`.
    folder: of its TFRecords, below the bucket.
    layouts: name of a TFRecord file -> how scenes lie in it. The first one is the usual variant.
    pools: split -> first scene, and the one behind the last, of the TFRecords.
    entities: the most that a scene holds, with the background; scenes with more are left out.
    size: of CLEVR pictures; None leaves a set as it is.
  """

  family: str
  folder: str
  layouts: Mapping[str, Layout]
  pools: Mapping[str, tuple[int, int]]
  entities: int
  size: int | None = None


def _layout(family: str, image: tuple[int, ...], masks: tuple[int, ...], axis: int = 0) -> Layout:
  count, shapes = masks[axis], {}
  for factor in factors.FAMILIES[family]:
    shapes[factor.name] = (count,) if factor.width == 1 else (count, factor.width)
  if family != 'clevr':
    shapes['color'] = (count, image[-1])
  return Layout(image, masks, axis, shapes)


def _sprites(entities: int, channels: int) -> Layout:
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
      'multi_dsprites_colored_on_grayscale': _sprites(6, 3),
      'multi_dsprites_colored_on_colored': _sprites(5, 3),
      'multi_dsprites_binarized': _sprites(4, 1),
    },
    _POOLS,
    entities=6,
  ),
  'clevr6': _Set('clevr', 'clevr_with_masks', _CLEVR, _CLEVR_POOLS, entities=7, size=96),
  'clevr10': _Set('clevr', 'clevr_with_masks', _CLEVR, _CLEVR_POOLS, entities=11, size=128),
}
# Columns of `factors` in the h5 files of CLEVR; those of the other sets are in our own order.
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
  known = SETS[name]
  files = tuple(
    RemoteFile(f'{file}.tfrecords', f'{_BUCKET}{known.folder}/{file}.tfrecords', size)
    for file in known.layouts
  )
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


def variants_of(name: str) -> tuple[str, ...]:
  """The variants of a set, the usual one first; () where there is one form only."""
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
  """The records of scenes `numbers`, rising, of a source."""

  scenes: Scenes
  numbers: np.ndarray
  family: str
  entities: int
  size: int | None

  def __call__(self, start: int, stop: int) -> Iterator[Example]:
    for place, scene in enumerate(self.scenes.read(self.numbers[start:stop]), start):
      yield self.record(scene, f'{self.scenes.path}: scene {self.numbers[place]}')

  def record(self, scene: Scene, origin: str) -> Example:
    """Present entities only, in their order; pictures cut out and shrunk if they are CLEVR's."""
    try:
      segmentation = factors.masks_to_segmentation(scene['masks'])
    except DataPrepError as error:
      raise DataPrepError(f'{origin}: {error}') from error
    present = scene['masks'].any((1, 2, 3))
    present[0] = True  # the background may be hidden
    kept = np.flatnonzero(present)
    if len(kept) > self.entities:
      raise DataPrepError(
        f'{origin} shows {len(kept)} entities, but this set has {self.entities} at most, the '
        'background among them; the raw files are of another data set'
      )
    numbers = np.zeros(len(present), np.uint8)
    numbers[kept] = np.arange(len(kept))
    image = np.broadcast_to(scene['image'], (*scene['image'].shape[:2], 3))
    return {
      **self._pictures(np.ascontiguousarray(image), numbers[segmentation], origin),
      **self._factors(scene, kept),
    }

  def _pictures(self, image: np.ndarray, segmentation: np.ndarray, origin: str) -> Example:
    if self.size is not None:
      shrink = Preparation(self.size, image.shape[:2], _CROP, 'bicubic')
      image = shrink(image, origin)
      segmentation = dataclasses.replace(shrink, kernel='nearest', channels=1)(segmentation, origin)
    return {'image': image, 'segmentation': segmentation}

  def _factors(self, scene: Scene, kept: np.ndarray) -> Example:
    found = {}
    for factor in factors.FAMILIES[self.family]:
      shape = (self.entities,) if factor.width == 1 else (self.entities, factor.width)
      array = np.zeros(shape, np.float32)
      array[: len(kept)] = scene[factor.name][kept] if factor.name in scene else np.nan
      found[f'factor_{factor.name}'] = array
    if 'visibility' not in scene or np.isnan(scene['visibility']).any():
      found['factor_visibility'] = (np.arange(self.entities) < len(kept)).astype(np.float32)
    return found


def load(request: Request) -> Contents:
  """Reads the gzipped TFRecords, or the two h5 files.

  Raises:
    DataPrepError: missing or damaged files, an unknown variant; when writing, masks that do not
      give every pixel to exactly one entity.
  """
  known = SETS[request.name]
  file = _file_of(request)
  variant = file.removeprefix(f'{request.name}_') if variants_of(request.name) else request.name
  size = ABOUT[request.name].files[0].bytes
  remote = RemoteFile(f'{file}.tfrecords', f'{_BUCKET}{known.folder}/{file}.tfrecords', size)
  about = dataclasses.replace(ABOUT[request.name], files=(remote,))
  paths = locate.locate(request, about)
  layout = known.layouts[file]
  if recognise.container_of(paths[0]) == 'tfrecord.gz':
    kind = 'gzipped TFRecords'
    numbers, sources = _split_records(RecordScenes(parts.one(paths, request.name), layout), known)
  else:
    kind = 'h5'
    numbers, sources = _split_h5(paths, known, layout)
  files, hash_lines = locate.check_published(paths, about, request.unverified)
  splits = {
    split: Split(
      len(numbers[split]),
      SceneExamples(sources[split], numbers[split], known.family, known.entities, known.size),
    )
    for split in numbers
  }
  side = known.size or layout.image[0]
  return Contents(
    fields=factors.fields(known.family, side, side, known.entities),
    splits=splits,
    views=make_views(splits['test'].count),
    info=CardInfo(
      version=1,
      source=f'{request.name} from {kind}',
      packages={},
      files=files,
      preprocessing=_describe(known),
      licence=about.licence,
      samples_publishable=True,
      variant=variant,
      details=factors.describe(known.family, known.entities),
    ),
    checks=(
      f'[ok] container: {kind}',
      f'[ok] variant: {variant}',
      *hash_lines,
      *_column_lines(kind, known),
      '[ok] every pixel belongs to exactly one entity',
    ),
    records_per_shard=min(16384, 2**28 // (4 * side**2)),
  )


def make_views(test: int) -> dict[str, View]:
  """All training scenes; the first `TEST` test scenes; those behind them to validate, if any."""
  first = np.arange(min(test, TEST))
  rest = np.arange(TEST, test)
  rule = f'index >= {TEST}' if len(rest) else f'index < {TEST}, as there are no others'
  return {
    'train': View('train', 'the whole split'),
    'valid': View('test', rule, rest if len(rest) else first),
    'test': View('test', f'index < {TEST}', first),
  }


def _file_of(request: Request) -> str:
  known = SETS[request.name]
  if request.variant is None:
    return next(iter(known.layouts))
  file = f'{request.name}_{request.variant}'
  if file not in known.layouts:
    choices = variants_of(request.name)
    raise DataPrepError(
      f'--variant={request.variant}: {request.name} has '
      + (f'the variants {", ".join(choices)}' if choices else 'no variants')
    )
  return file


def _split_records(
  scenes: RecordScenes, known: _Set
) -> tuple[dict[str, np.ndarray], dict[str, Scenes]]:
  """Split -> numbers of its scenes, and split -> where they are."""
  numbers = {split: np.arange(*pool) for split, pool in known.pools.items()}
  if known.family == 'clevr' and known.entities < scenes.layout.masks[0]:
    stop = max(stop for _, stop in known.pools.values())
    print(f'{scenes.path.name}: counting the objects of {stop:,} scenes; this takes a while')
    visible = scenes.factor('visibility', stop)[:, 1:].sum(1)
    few = visible <= known.entities - 1
    numbers = {split: found[few[found]] for split, found in numbers.items()}
    if empty := [split for split, found in numbers.items() if not len(found)]:
      raise DataPrepError(
        f'{scenes.path} has no scene of at most {known.entities - 1} objects for {empty[0]}; the '
        'file is of another data set'
      )
  return numbers, dict.fromkeys(numbers, scenes)


def _split_h5(
  paths: tuple[pathlib.Path, ...], known: _Set, layout: Layout
) -> tuple[dict[str, np.ndarray], dict[str, ArrayScenes]]:
  for path in paths:
    if (kind := recognise.container_of(path)) not in ('h5', 'folder'):
      raise DataPrepError(
        f'{path} must be a gzipped TFRecord or an unpacked h5 file with masks, but its content '
        f'is: {kind}'
      )
  dealt = parts.by_role(paths, {'test': r'test.*\.(h5|hdf5)$', 'train': r'\.(h5|hdf5)$'})
  sources = {
    split: open_group(parts.one(dealt[split], split), split, _columns(known), layout.image)
    for split in ('train', 'test')
  }
  return {split: np.arange(len(found)) for split, found in sources.items()}, sources


def _column_lines(kind: str, known: _Set) -> tuple[str, ...]:
  if kind != 'h5' or known.family == 'clevr':
    return ()
  return (
    f'[warn] columns of the factors, if any, are taken for {", ".join(_columns(known))}; their '
    'order was not published',
  )


def _columns(known: _Set) -> dict[str, tuple[int, ...]]:
  if known.family == 'clevr':
    return {name: (column,) for column, name in enumerate(_CLEVR_COLUMNS)}
  found, start = {}, 0
  for factor in factors.FAMILIES[known.family]:
    found[factor.name] = tuple(range(start, start + factor.width))
    start += factor.width
  return found


def _describe(known: _Set) -> str:
  text = 'masks joined to one entity number per pixel; entities that show no pixel left out'
  if known.size is None:
    return text + '; no resampling'
  return (
    f'{text}; box left 64, upper 29, right 256, lower 221; resized to {known.size} px by Pillow, '
    'pictures bicubic, entity numbers nearest'
  )
