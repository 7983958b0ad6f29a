"""Synthetic Tetrominoes: three bevelled pieces on black, 35x35 colour; no download.

Look and placement follow measurements on published scenes of the original. A piece may be at any
pixel, so two pieces can touch at any offset.
"""

import dataclasses

import numpy as np

from data_prep.core import factors
from data_prep.core.contents import Contents, Example
from data_prep.core.request import Request
from data_prep.synthetic import scenes

_COUNTS = {'train': 10_000, 'test': 1_000}
_SIDE = 35
_CELL = 5
NUM_PIECES = 3
# The original has 17 shapes in fixed orientations. Fourteen are known from its scenes. It has three
# of the other five one-sided tetrominoes ('####', '.#/##/#.', '.#./###', '.#/.#/##', '##/#./#.'),
# but which three is not published. The last three here are our choice.
SHAPES = (
  '##/##',
  '#/#/#/#',
  '#./##/.#',
  '.##/##.',
  '##./.##',
  '#./##/#.',
  '.#/##/.#',
  '###/.#.',
  '#./#./##',
  '###/..#',
  '###/#..',
  '#../###',
  '..#/###',
  '##/.#/.#',
  '.#/##/#.',
  '.#./###',
  '.#/.#/##',
)
# red, green, blue, yellow, magenta, cyan: each channel is on or off
COLORS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1))
_BEVEL = np.array(  # grey levels of the channels that are on, in every cell
  [
    [191, 255, 255, 255, 223],
    [127, 159, 159, 159, 191],
    [127, 159, 159, 159, 191],
    [127, 159, 159, 159, 191],
    [95, 63, 63, 63, 127],
  ],
  np.uint8,
)

ABOUT = scenes.about_scenes(
  _SIDE, NUM_PIECES + 1, 'train 10,000; test 1,000 (views valid 680, test 320)', '55 MB'
)


@dataclasses.dataclass(frozen=True)
class Piece:
  """A tetromino; `left` and `top` are the first pixels of its bounding box."""

  shape: int  # index in SHAPES
  color: int  # index in COLORS
  left: int
  top: int

  def pixels(self) -> np.ndarray:
    """Returns the grey levels of the channels that are on, uint8 [35, 35]; 0 elsewhere."""
    whole = np.zeros((_SIDE, _SIDE), np.uint8)
    cells = np.kron(_cells(self.shape), _BEVEL)
    height, width = cells.shape
    whole[self.top : self.top + height, self.left : self.left + width] = cells
    return whole


def load(request: Request) -> Contents:
  """Generates the scenes when their records are written."""
  del request  # this set has no options
  return scenes.scene_set(
    ABOUT,
    'tetrominoes',
    _SIDE,
    NUM_PIECES + 1,
    categories={'shape': SHAPES},
    splits=scenes.splits(make_scene, _COUNTS),
    views=scenes.train_and_test_views(_COUNTS['test']),
    preprocessing=f'{NUM_PIECES} pieces of four {_CELL}x{_CELL} cells: shape, colour and '
    'position (a pixel such that the piece is inside) uniform and independent; a piece that '
    'overlaps an earlier one is drawn again. Factors: x, y = first column and row of the '
    'bounding box in pixels; color = RGB, 0 or 1; entity 0 = black background',
  )


def make_scene(rng: np.random.Generator) -> Example:
  """Draws one record: `image` [35, 35, 3], `segmentation` [35, 35, 1] and the factors."""
  pieces = _draw_pieces(rng)
  image, segmentation = render(pieces)
  present = [
    {'x': p.left, 'y': p.top, 'shape': p.shape + 1, 'color': COLORS[p.color]} for p in pieces
  ]
  packed = factors.pack('tetrominoes', NUM_PIECES + 1, [{}, *present])
  return {'image': image, 'segmentation': segmentation, **packed}


def render(pieces: list[Piece]) -> tuple[np.ndarray, np.ndarray]:
  """Renders disjoint pieces: image uint8 [35, 35, 3] and segmentation uint8 [35, 35, 1]."""
  image = np.zeros((_SIDE, _SIDE, 3), np.uint8)
  segmentation = np.zeros((_SIDE, _SIDE, 1), np.uint8)
  for number, piece in enumerate(pieces, 1):
    pixels = piece.pixels()[..., None]
    image += pixels * np.array(COLORS[piece.color], np.uint8)
    segmentation[pixels > 0] = number
  return image, segmentation


def _draw_pieces(rng: np.random.Generator) -> list[Piece]:
  """Draws pieces one after another; a piece that overlaps an earlier one is drawn again."""
  pieces: list[Piece] = []
  taken = np.zeros((_SIDE, _SIDE), bool)
  while len(pieces) < NUM_PIECES:
    shape, color = int(rng.integers(len(SHAPES))), int(rng.integers(len(COLORS)))
    rows, columns = _cells(shape).shape
    left = int(rng.integers(_SIDE - columns * _CELL + 1))
    top = int(rng.integers(_SIDE - rows * _CELL + 1))
    piece = Piece(shape, color, left, top)
    covered = piece.pixels() > 0
    if not (covered & taken).any():
      pieces.append(piece)
      taken |= covered
  return pieces


def _cells(shape: int) -> np.ndarray:
  """Returns 1 for the cells of a shape in its bounding box, uint8 [rows, columns]."""
  return np.array([[cell == '#' for cell in row] for row in SHAPES[shape].split('/')], np.uint8)
