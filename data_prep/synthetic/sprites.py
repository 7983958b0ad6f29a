"""Masks of the dSprites shapes with hard edges, in integer arithmetic.

No pixel depends on a float, so the masks are identical on every platform.
"""

import numpy as np

from data_prep.synthetic.directions import direction

SIDE = 64  # pixels
SHAPES = ('square', 'ellipse', 'heart')
NUM_SCALES = 6  # linear from 0.5 to 1
NUM_ORIENTATIONS = 40  # linear over [0, 2 pi)
NUM_POSITIONS = 32  # along each axis, linear over [0, 1]
_FIRST = 16  # pixel of the centre at position 0; position 1 is 31 pixels further
_UNIT = 2**10  # steps of a sprite's own coordinates per radius
_TURN = 2**20  # steps of sines and cosines per unit
_RADIUS = 14  # pixels at scale 1: half the side of a square is 11/14 of it


def scale_value(scale: int) -> float:
  """Returns the scale of an index 0 to 5."""
  return (NUM_SCALES - 1 + scale) / 10


def mask(shape: int, x: int, y: int, scale: int, orientation: int) -> np.ndarray:
  """Returns the pixels of a sprite, bool [64, 64].

  Args:
    shape: index in `SHAPES`.
    x, y: position indices of the centre, 0 to 31; y grows downwards.
    scale: index, 0 to 5.
    orientation: index, 0 to 39; it turns clockwise in the picture.
  """
  cosine, sine = (int(_TURN * part) for part in direction(orientation / NUM_ORIENTATIONS))
  column = np.arange(SIDE)[None, :] - (_FIRST + x)
  row = np.arange(SIDE)[:, None] - (_FIRST + y)
  radius = _RADIUS * (NUM_SCALES - 1 + scale)  # tenths of a pixel
  u = (column * cosine + row * sine) * _UNIT * 10 // (_TURN * radius)
  v = (row * cosine - column * sine) * _UNIT * 10 // (_TURN * radius)
  return _INSIDE[shape](u, v)


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
  return np.maximum(abs(u), abs(v)) * 14 <= 11 * _UNIT


def _ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
  """Returns the inside of an ellipse with half axes of 1 and 5/8 radius."""
  return 25 * u * u + 64 * v * v <= 25 * _UNIT * _UNIT


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
  """Returns the inside of a heart, (x^2 + y^2 - 1)^3 < x^2 y^3, y upwards; radius 1.2."""
  one = 250  # small enough that the sixth power stays within 64 bits
  x = u.clip(-2 * _UNIT, 2 * _UNIT) * 300 // _UNIT
  y = -v.clip(-2 * _UNIT, 2 * _UNIT) * 300 // _UNIT
  return (x * x + y * y - one * one) ** 3 < x * x * y * y * y * one


_INSIDE = (_square, _ellipse, _heart)
