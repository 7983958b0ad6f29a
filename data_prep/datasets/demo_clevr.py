"""Synthetic CLEVR with masks and CLEVRTEX: ray-cast solids on a plane; no download.

`demo_clevr6` and `demo_clevr10` have the crop and size of the real sets, `demo_clevrtex` those of
CLEVRTEX. With `--variant=camo` everything in a scene has the same material. The scenes look like
the originals, but come from another renderer: results must not be compared with those of papers.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np
from PIL import Image

from data_prep.core import factors, sources, views
from data_prep.core.contents import Contents, Example
from data_prep.core.request import GENERATED_LICENCE, Request
from data_prep.errors import DataPrepError
from data_prep.synthetic import clevr_scenes, ray_caster, scenes, textures
from data_prep.synthetic.clevr_scenes import Rules, Setting
from data_prep.synthetic.ray_caster import Paint, Surface
from data_prep.synthetic.solids import SHAPES

COLORS = {
  'gray': (87, 87, 87),
  'red': (173, 35, 35),
  'blue': (42, 75, 215),
  'green': (29, 105, 20),
  'brown': (129, 74, 25),
  'purple': (129, 38, 192),
  'cyan': (41, 208, 208),
  'yellow': (255, 238, 51),
}
FINISHES = ('rubber', 'metal')
SIZES = {  # radius of a sphere
  'clevr': {'small': 0.35, 'large': 0.7},
  'clevrtex': {'small': 0.4, 'medium': 0.6, 'large': 0.85},
}
_BOX = {'clevr': (64, 29, 256, 221), 'clevrtex': (64, 24, 256, 216)}
_CROP = 192  # side of both boxes
_KERNEL = {'clevr': Image.Resampling.BICUBIC, 'clevrtex': Image.Resampling.BILINEAR}
_GROUND = Paint((172, 170, 166))
_FEWEST = 3  # objects
_MOST = {'demo_clevr6': 6, 'demo_clevr10': 10, 'demo_clevrtex': 10}
_SIDE = {'demo_clevr6': 96, 'demo_clevr10': 128, 'demo_clevrtex': 128}
_SEED = {'demo_clevr6': 6, 'demo_clevr10': 10, 'demo_clevrtex': 20}
_COUNTS = {'train': 4_000, 'test': 400}
_COUNT = 4_000  # scenes of demo_clevrtex
_VARIANTS = ('full', 'camo')
_SPLITS = 'train 4,000; test 400 (views valid 80, test 320)'
_RECIPE = (
  'objects uniform in number, size, shape and rotation, at uniform places within 3 units of the '
  'middle with 0.25 units between any two; centres at least 10 px inside the crop, and at least '
  '64 of its pixels of each object visible, else the scene is drawn anew; camera and lights '
  'shifted a little; 240x320, of which only the box {box} is rendered, one ray a pixel; resized '
  'to {side} px with {kernel}, the segmentation with nearest'
)


ABOUT = {
  'demo_clevr6': scenes.about_scenes(96, 7, _SPLITS, '164 MB'),
  'demo_clevr10': scenes.about_scenes(128, 11, _SPLITS, '291 MB'),
  'demo_clevrtex': scenes.about_scenes(
    128,
    11,
    'all 4,000 (views test 400, valid 400, train 3,200)',
    '263 MB',
    licence=f'{GENERATED_LICENCE}; the photographs for textures: CC0',
    variants=_VARIANTS,
  ),
}


def load(request: Request) -> Contents:
  """Renders the scenes when their records are written.

  Raises:
    DataPrepError: the variant is unknown, or a photograph for textures is missing or damaged.
  """
  return _load_clevrtex(request) if request.name == 'demo_clevrtex' else _load_clevr(request)


@dataclasses.dataclass(frozen=True)
class Clevr:
  """Renderer of the records of a set of plain objects; `name` is a key of `ABOUT`."""

  name: str

  def __call__(self, rng: np.random.Generator) -> Example:
    setting = _draw_setting(rng, 'clevr', self.name)
    looks = [
      (int(rng.integers(len(COLORS))), int(rng.integers(len(FINISHES)))) for _ in setting.placed
    ]
    paints = [Paint(list(COLORS.values())[color], finish == 1) for color, finish in looks]
    objects = [
      {**_factors(setting, number), 'color': color + 1, 'material': finish + 1}
      for number, (color, finish) in enumerate(looks)
    ]
    return {
      **_picture(setting, [_GROUND, *paints], _SIDE[self.name], _KERNEL['clevr']),
      **factors.pack('clevr', _MOST[self.name] + 1, [{}, *objects]),
    }


@dataclasses.dataclass(frozen=True)
class ClevrTex:
  """Renderer of records with textures; with `camo` a scene has one material."""

  patterns: dict[str, np.ndarray]
  camo: bool

  def __call__(self, rng: np.random.Generator) -> Example:
    setting = _draw_setting(rng, 'clevrtex', 'demo_clevrtex')
    materials = rng.integers(len(textures.MATERIALS), size=len(setting.placed) + 1)
    if self.camo:
      materials[:] = materials[0]
    surfaces = [self._surface(rng, int(material)) for material in materials]
    ground, *objects = [{'material': int(material) + 1} for material in materials]
    objects = [{**_factors(setting, number), **one} for number, one in enumerate(objects)]
    side, kernel = _SIDE['demo_clevrtex'], _KERNEL['clevrtex']
    return {
      **_picture(setting, surfaces, side, kernel),
      **factors.pack('clevrtex', _MOST['demo_clevrtex'] + 1, [ground, *objects]),
    }

  def _surface(self, rng: np.random.Generator, number: int) -> Surface:
    material = list(textures.MATERIALS.values())[number]
    x, y, z = rng.integers(textures.SIDE, size=3).tolist()
    return textures.Textured(self.patterns[material.pattern], material, (x, y, z))


def _draw_setting(rng: np.random.Generator, family: str, name: str) -> Setting:
  sizes = tuple(SIZES[family].values())
  return clevr_scenes.draw_setting(rng, Rules((_FEWEST, _MOST[name]), sizes, _BOX[family]))


def _factors(setting: Setting, number: int) -> dict[str, Any]:
  """Returns the factors of an object that follow from its place; both families have them."""
  placed = setting.placed[number]
  x, y, z = placed.solid.center
  return {
    'x': x,
    'y': y,
    'z': z,
    'pixel_coords': setting.camera.project(placed.solid.center),
    'rotation': placed.rotation,
    'size': placed.size + 1,
    'shape': SHAPES.index(placed.solid.shape) + 1,
  }


def _picture(
  setting: Setting, surfaces: Sequence[Surface], side: int, kernel: Image.Resampling
) -> dict[str, np.ndarray]:
  """Renders `image` [side, side, 3] and `segmentation` [side, side, 1] of a setting."""
  scene = ray_caster.Scene([one.solid for one in setting.placed], surfaces, setting.lights)
  levels = ray_caster.paint(scene, setting.rays, setting.hits).reshape(_CROP, _CROP, 3)
  number = setting.hits.number.reshape(_CROP, _CROP)
  image = Image.fromarray(levels).resize((side, side), kernel)
  segmentation = Image.fromarray(number).resize((side, side), Image.Resampling.NEAREST)
  return {'image': np.array(image), 'segmentation': np.array(segmentation)[..., None]}


def _load_clevr(request: Request) -> Contents:
  if request.variant is not None:
    raise DataPrepError(f'{request.name} has no variants; leave out --variant={request.variant}')
  name = request.name
  categories = {
    'shape': SHAPES,
    'size': tuple(SIZES['clevr']),
    'material': FINISHES,
    'color': tuple(COLORS),
  }
  return scenes.scene_set(
    ABOUT[name],
    'clevr',
    _SIDE[name],
    _MOST[name] + 1,
    categories=categories,
    splits=scenes.splits(Clevr(name), _COUNTS, _SEED[name]),
    views=scenes.train_and_test_views(_COUNTS['test']),
    packages=('numpy', 'pillow'),
    preprocessing=f'{_FEWEST} to {_MOST[name]} ' + _recipe('clevr', name) + '. Factors: x, y, z '
    'of the centre; rotation in degrees; pixel_coords = column, row and depth in the frame of '
    '240x320, before the crop; entity 0 = ground',
    records_per_shard=1024,
  )


def _load_clevrtex(request: Request) -> Contents:
  variant, name = request.variant or 'full', request.name
  if variant not in _VARIANTS:
    raise DataPrepError(
      f'--variant={variant} does not exist for {name}; choose one of: {", ".join(_VARIANTS)}'
    )
  paths = textures.locate_photographs()
  files = {file: sources.sha256_file(path) for file, path in paths.items()}
  make = ClevrTex(textures.make_patterns(paths), camo=variant == 'camo')
  categories = {
    'shape': SHAPES,
    'size': tuple(SIZES['clevrtex']),
    'material': tuple(textures.MATERIALS),
  }
  return scenes.scene_set(
    ABOUT[name],
    'clevrtex',
    _SIDE[name],
    _MOST[name] + 1,
    categories=categories,
    splits=scenes.splits(make, {'all': _COUNT}, _SEED[name]),
    views={
      'train': views.span('all', _COUNT // 5, _COUNT),
      'valid': views.span('all', _COUNT // 10, _COUNT // 5),
      'test': views.span('all', 0, _COUNT // 10),
    },
    source=f'generated; photographs of brick, grass and gravel from {textures.PACKAGE}',
    packages=('numpy', 'pillow', textures.PACKAGE),
    preprocessing=f'{_FEWEST} to {_MOST[name]} ' + _recipe('clevrtex', name) + f'. Material of '
    f'the ground and of each object: {"one for all" if make.camo else "uniform"}. Factors: '
    'rotation in degrees; entity 0 = ground with its material',
    variant=variant,
    container=f'{len(paths)} PNG files in {textures.PACKAGE}',
    published=(files, sources.check_files(files, textures.SHA256)),
    records_per_shard=1024,
  )


def _recipe(family: str, name: str) -> str:
  kernel = f"Pillow's {_KERNEL[family].name.lower()} kernel"
  return _RECIPE.format(box=_BOX[family], side=_SIDE[name], kernel=kernel)
