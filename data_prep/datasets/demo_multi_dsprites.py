"""Synthetic Multi-dSprites (coloured on grey): 2-5 overlapping sprites, 64x64; no download.

The original does not document the ranges of the colours, the order of painting, and whether sprites
may be hidden; these are our choice.
"""

import dataclasses

import numpy as np

from data_prep.core import factors
from data_prep.core.contents import Contents, Example
from data_prep.core.request import Request
from data_prep.synthetic import scenes, sprites

_COUNTS = {'train': 10_000, 'test': 1_000}
_ENTITIES = 6
_NUM_SPRITES = (2, 5)
_MIN_VISIBLE = 16  # pixels of every sprite that stay uncovered
# Saturation and value, in 255ths, start at half: the weakest colour differs from every grey.
_WEAKEST = 128

ABOUT = scenes.about_scenes(
  sprites.SIDE, _ENTITIES, 'train 10,000; test 1,000 (views valid 680, test 320)', '183 MB'
)


@dataclasses.dataclass(frozen=True)
class Sprite:
  """A sprite by the indices of its factors, and its colour of three grey levels."""

  shape: int
  x: int
  y: int
  scale: int
  orientation: int
  color: tuple[int, int, int]

  def factors(self) -> dict[str, float | tuple[float, ...]]:
    """Returns the factors in the units of dSprites."""
    return {
      'x': self.x / (sprites.NUM_POSITIONS - 1),
      'y': self.y / (sprites.NUM_POSITIONS - 1),
      'shape': self.shape + 1,
      'color': tuple(level / 255 for level in self.color),
      'orientation': 2 * np.pi * self.orientation / sprites.NUM_ORIENTATIONS,
      'scale': sprites.scale_value(self.scale),
    }


def load(request: Request) -> Contents:
  """Generates the scenes when their records are written."""
  del request  # this set has no options
  return scenes.scene_set(
    ABOUT,
    'multi_dsprites',
    sprites.SIDE,
    _ENTITIES,
    categories={'shape': sprites.SHAPES},
    splits=scenes.splits(make_scene, _COUNTS),
    views=scenes.train_and_test_views(_COUNTS['test']),
    preprocessing='2 to 5 sprites (uniform): shape, one of 6 scales, 40 orientations and 32 '
    'positions along each axis uniform and independent; colour HSV with hue uniform, saturation '
    'and value uniform in [0.5, 1]; background grey uniform in 0..255; painted in the order of '
    f'the entities, so a later one covers an earlier; sprites with fewer than {_MIN_VISIBLE} '
    'pixels uncovered make all sprites of the scene be drawn again; hard edges. Factors: x, y, '
    'scale in [0, 1] and orientation in radians as in dSprites; color = RGB in [0, 1]; entity '
    '0 = background with its color',
  )


def make_scene(rng: np.random.Generator) -> Example:
  """Draws one record: `image` [64, 64, 3], `segmentation` [64, 64, 1] and the factors."""
  grey = int(rng.integers(256))
  count = int(rng.integers(_NUM_SPRITES[0], _NUM_SPRITES[1] + 1))
  while True:
    placed = [_draw_sprite(rng) for _ in range(count)]
    image, segmentation = render(grey, placed)
    if np.bincount(segmentation.ravel(), minlength=count + 1)[1:].min() >= _MIN_VISIBLE:
      break
  present = [{'color': (grey / 255,) * 3}, *(sprite.factors() for sprite in placed)]
  packed = factors.pack('multi_dsprites', _ENTITIES, present)
  return {'image': image, 'segmentation': segmentation, **packed}


def render(grey: int, placed: list[Sprite]) -> tuple[np.ndarray, np.ndarray]:
  """Renders image uint8 [64, 64, 3] and segmentation uint8 [64, 64, 1], later sprites in front."""
  image = np.full((sprites.SIDE, sprites.SIDE, 3), grey, np.uint8)
  segmentation = np.zeros((sprites.SIDE, sprites.SIDE, 1), np.uint8)
  for number, s in enumerate(placed, 1):
    covered = sprites.mask(s.shape, s.x, s.y, s.scale, s.orientation)
    image[covered] = s.color
    segmentation[covered] = number
  return image, segmentation


def _draw_sprite(rng: np.random.Generator) -> Sprite:
  return Sprite(
    shape=int(rng.integers(len(sprites.SHAPES))),
    x=int(rng.integers(sprites.NUM_POSITIONS)),
    y=int(rng.integers(sprites.NUM_POSITIONS)),
    scale=int(rng.integers(sprites.NUM_SCALES)),
    orientation=int(rng.integers(sprites.NUM_ORIENTATIONS)),
    color=hsv_to_rgb(int(rng.integers(6 * 256)), *map(int, rng.integers(_WEAKEST, 256, 2))),
  )


def hsv_to_rgb(hue: int, saturation: int, value: int) -> tuple[int, int, int]:
  """Converts hue 0..1535 (256 steps a sextant), saturation and value 0..255 to RGB levels."""
  sextant, step = divmod(hue, 256)
  strongest, weakest = value, value * (255 - saturation) // 255
  rising = weakest + (strongest - weakest) * step // 256
  falling = strongest + weakest - rising
  return (
    (strongest, rising, weakest),
    (falling, strongest, weakest),
    (weakest, strongest, rising),
    (weakest, falling, strongest),
    (rising, weakest, strongest),
    (strongest, weakest, falling),
  )[sextant]
