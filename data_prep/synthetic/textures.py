"""Textured surfaces: patterns from scikit-image's photographs or generated, between two colours.

A pattern is grey and periodic. It is projected onto a solid along each of its three axes; the
projections blend with the direction of the normal.
"""

from collections.abc import Mapping
import dataclasses
import pathlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from data_prep.core import sources
from data_prep.errors import DataPrepError
from data_prep.synthetic import draws, noise
from data_prep.synthetic.solids import column

PACKAGE = 'scikit-image'
_WRITTEN_FOR = '0.26.0'
SHA256 = {
  'skimage/data/brick.png': '7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf',
  'skimage/data/grass.png': 'b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89',
  'skimage/data/gravel.png': 'c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12',
}
SIDE = 128  # side of a pattern, texels
_DENSITY = 40.0  # texels per unit: about one per pixel of the picture
_NOISE = (0, 2**32 - 1)  # seed and split of the patterns; examples have others

Color = tuple[int, int, int]  # display levels 0 to 255


@dataclasses.dataclass(frozen=True)
class Material:
  """A pattern and the colours of its darkest and brightest places."""

  pattern: str
  dark: Color
  bright: Color


MATERIALS = {
  'red bricks': Material('brick', (70, 22, 16), (205, 98, 72)),
  'sandstone bricks': Material('brick', (112, 92, 60), (236, 216, 172)),
  'fresh grass': Material('grass', (14, 42, 8), (138, 190, 62)),
  'dry grass': Material('grass', (84, 62, 20), (232, 206, 120)),
  'grey gravel': Material('gravel', (42, 42, 46), (205, 205, 208)),
  'blue gravel': Material('gravel', (16, 28, 66), (120, 158, 222)),
  'rust': Material('clouds', (52, 20, 12), (214, 112, 44)),
  'ice': Material('clouds', (66, 122, 164), (232, 246, 252)),
  'white marble': Material('veins', (112, 112, 126), (242, 240, 236)),
  'green marble': Material('veins', (8, 50, 40), (112, 186, 148)),
  'planks': Material('stripes', (70, 40, 18), (186, 128, 72)),
  'tiles': Material('checks', (44, 40, 64), (222, 204, 226)),
}


@dataclasses.dataclass(frozen=True)
class Textured:
  """Surface of one solid, or of the ground.

  Attributes:
    pattern: brightness 0 to 1, float32 [128, 128].
    material: gives the colours.
    offset: offset of the pattern along each axis, texels.
  """

  pattern: np.ndarray
  material: Material
  offset: tuple[int, int, int]
  metal: bool = False

  def albedo(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Returns linear RGB float32 [3, N] at points and normals [3, N] in the solid's own axes."""
    texel = np.floor(points * np.float32(_DENSITY)).astype(np.int32)
    x, y, z = (texel + np.array(self.offset, np.int32)[:, None]) % SIDE
    weights = normals * normals
    weights = weights * weights
    weights = weights / (weights[0] + weights[1] + weights[2])
    layers = (self.pattern[z, y], self.pattern[z, x], self.pattern[y, x])
    grey = weights[0] * layers[0] + weights[1] * layers[1] + weights[2] * layers[2]
    dark, bright = (
      column([(level / 255) ** 2 for level in color])
      for color in (self.material.dark, self.material.bright)
    )
    return dark + (bright - dark) * grey


def make_patterns(paths: Mapping[str, pathlib.Path]) -> dict[str, np.ndarray]:
  """Makes all patterns that `MATERIALS` name, float32 [128, 128] from 0 to 1.

  Args:
    paths: photographs, from `locate_photographs`.

  Raises:
    DataPrepError: a file is not a grey picture of 512x512.
  """
  patterns = {path.stem: _stretch(_read_photograph(path)) for path in paths.values()}
  rng = draws.generator(*_NOISE, 0)
  clouds = noise.fractal_noise(rng, SIDE, 4, 5)
  bent = noise.fractal_noise(rng, SIDE, 2, 5)
  row, col = np.arange(SIDE)[:, None], np.arange(SIDE)[None, :]
  veins = abs((col * 2 / SIDE + 3 * bent) % 1 - 0.5) * 2
  grain = noise.value_noise(rng, SIDE, 32)
  planks = (0.35 + 0.65 * grain) * np.minimum(1, (row % 32) / 4)
  checks = (row // 16 + col // 16) % 2 * 0.8 + 0.2 * grain
  made = {'clouds': clouds, 'veins': veins, 'stripes': planks, 'checks': checks}
  return patterns | {name: _stretch(pattern) for name, pattern in made.items()}


def locate_photographs() -> dict[str, pathlib.Path]:
  """Returns the paths of the photographs by their names in the package.

  Raises:
    DataPrepError: scikit-image is not installed or lacks a photograph.
  """
  return {name: sources.package_file(PACKAGE, name, _WRITTEN_FOR) for name in SHA256}


def _read_photograph(path: pathlib.Path) -> np.ndarray:
  """Reads a photograph at a quarter of its size, [128, 128]."""
  try:
    with Image.open(path) as image:
      if image.mode != 'L' or image.size != (4 * SIDE, 4 * SIDE):
        raise DataPrepError(
          f'{path} must be a grey picture of {4 * SIDE}x{4 * SIDE}, but is {image.mode} of '
          f'{image.width}x{image.height}; '
          f'run: pip install --no-deps --force-reinstall {PACKAGE}=={_WRITTEN_FOR}'
        )
      return np.asarray(image.reduce(4))
  except (UnidentifiedImageError, OSError) as error:
    raise DataPrepError(
      f'{path} cannot be read as a picture ({error}); '
      f'run: pip install --no-deps --force-reinstall {PACKAGE}=={_WRITTEN_FOR}'
    ) from error


def _stretch(pattern: np.ndarray) -> np.ndarray:
  """Maps the 2nd percentile to 0 and the 98th to 1."""
  ordered = np.sort(pattern, axis=None)
  low, high = (float(ordered[ordered.size * share // 100]) for share in (2, 98))
  return ((pattern - low) / (high - low)).clip(0, 1).astype(np.float32)
