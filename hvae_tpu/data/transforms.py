"""Transforms: small changes of single examples, by name, such as `flip` and `crop:64`."""

from collections.abc import Callable, Sequence
import functools

import numpy as np

from hvae_tpu.errors import UserError

Example = dict[str, np.ndarray]
Transform = Callable[[Example, np.random.Generator], Example]
_PICTURES = ('image', 'video', 'segmentation')  # fields [..., H, W, C]


def flip(example: Example, rng: np.random.Generator) -> Example:
  """Mirrors all pictures of an example left to right, or none of them, with equal chances."""
  if rng.random() < 0.5:
    return example
  return {
    name: array[..., ::-1, :] if name in _PICTURES else array for name, array in example.items()
  }


def binarize(example: Example, rng: np.random.Generator) -> Example:
  """Draws every pixel of `image` as 255 with probability value / 255, else as 0."""
  image = example['image']
  black = rng.random(image.shape, np.float32) >= image / np.float32(255)
  return {**example, 'image': np.where(black, np.uint8(0), np.uint8(255))}


def crop(example: Example, rng: np.random.Generator, size: int) -> Example:
  """Cuts the same random square of `size` px out of all pictures of an example."""
  height, width = _height_and_width(example, size, 'crop')
  top, left = (int(rng.integers(0, whole - size + 1)) for whole in (height, width))
  return _cut(example, top, left, size)


def centre_crop(example: Example, rng: np.random.Generator, size: int) -> Example:
  """Cuts the central square of `size` px out of all pictures of an example."""
  del rng
  height, width = _height_and_width(example, size, 'centre_crop')
  return _cut(example, (height - size) // 2, (width - size) // 2, size)


# name -> function, and whether it takes a whole number after a colon
TRANSFORMS: dict[str, tuple[Callable[..., Example], bool]] = {
  'flip': (flip, False),
  'binarize': (binarize, False),
  'crop': (crop, True),
  'centre_crop': (centre_crop, True),
}


def parse(texts: Sequence[str]) -> tuple[Transform, ...]:
  """Returns the functions of the transforms that a config names; they can be pickled.

  Raises:
    UserError: an unknown name, a missing number, or a number that does not belong there.
  """
  transforms = []
  for text in texts:
    name, colon, number = text.partition(':')
    if name not in TRANSFORMS:
      raise UserError(f'there is no transform {name!r}; choose from: {", ".join(TRANSFORMS)}')
    function, takes_number = TRANSFORMS[name]
    if takes_number != bool(colon) or colon and not (number.isdecimal() and int(number)):
      form = f"'{name}:N' with a whole number N from 1 on" if takes_number else f"'{name}'"
      raise UserError(f'the transform {text!r} must be written {form}')
    transforms.append(functools.partial(function, size=int(number)) if takes_number else function)
  return tuple(transforms)


def _height_and_width(example: Example, size: int, name: str) -> tuple[int, int]:
  """Returns height and width of the pictures, px; UserError if they are smaller than `size`."""
  shape = next(array.shape for key, array in example.items() if key in _PICTURES)
  if size > min(shape[-3:-1]):
    raise UserError(f'the transform {name}:{size} does not fit into {shape[-3]}x{shape[-2]} px')
  return shape[-3], shape[-2]


def _cut(example: Example, top: int, left: int, size: int) -> Example:
  """Cuts a square of `size` px out of all pictures."""
  return {
    name: array[..., top : top + size, left : left + size, :] if name in _PICTURES else array
    for name, array in example.items()
  }
