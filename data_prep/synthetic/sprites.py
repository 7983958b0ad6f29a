"""Outlines of the dSprites shapes as hard-edged masks, in whole-number arithmetic.

Nothing here is a float that decides about a pixel, so every platform draws the same.
"""

import numpy as np

from data_prep.synthetic.directions import direction

SIDE = 64  # of the picture, pixels
SHAPES = ('square', 'ellipse', 'heart')
NUM_SCALES = 6  # linear from 0.5 to 1
NUM_ORIENTATIONS = 40  # linear over [0, 2 pi)
NUM_POSITIONS = 32  # along each axis, linear over [0, 1]
_FIRST = 16  # pixel that position 0 is centred at; position 1 is 31 pixels on
_UNIT = 2**10  # steps of a sprite's own coordinates in its radius
_TURN = 2**20  # sines and cosines become whole numbers
_RADIUS = 14  # pixels at scale 1: half the side of a square is 11/14 of it


def scale_value(scale: int) -> float:
  """The scale that index 0 to 5 stands for."""
  return (NUM_SCALES - 1 + scale) / 10


def mask(shape: int, x: int, y: int, scale: int, orientation: int) -> np.ndarray:
  """Pixels of a sprite, bool [64, 64].

  Args:
    shape: index in `SHAPES`.
    x, y: position indices of the centre, 0 to 31; y grows downwards.
    scale: index, 0 to 5.
    orientation: index, 0 to 39; it turns clockwise as seen.
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
  """Half axes of one radius and of 5/8 radius."""
  return 25 * u * u + 64 * v * v <= 25 * _UNIT * _UNIT


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
  """(x^2 + y^2 - 1)^3 < x^2 y^3, y upwards; a radius is 1.2 in these coordinates."""
  one = 250  # small enough that the sixth power stays within 64 bits
  x = u.clip(-2 * _UNIT, 2 * _UNIT) * 300 // _UNIT
  y = -v.clip(-2 * _UNIT, 2 * _UNIT) * 300 // _UNIT
  return (x * x + y * y - one * one) ** 3 < x * x * y * y * y * one


_INSIDE = (_square, _ellipse, _heart)
