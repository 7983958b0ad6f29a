"""Records of multi-object pictures: an entity number per pixel, and one array per factor.

Entity 0 is the background; objects are 1, 2, ... in the order of their source. Factor arrays have
a row per entity up to the largest number of a data set, and zeros where an entity is absent.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from data_prep.core.contents import Contents, Field, make_contents
from data_prep.core.request import About
from data_prep.errors import DataPrepError


@dataclasses.dataclass(frozen=True)
class Factor:
  """One property of an entity: `width` numbers, or a category number from 1 on.

  0 stands for no category: an absent entity, or a background that has none.
  """

  name: str
  kind: str = 'continuous'  # or 'categorical'
  width: int = 1


_SHAPE = Factor('shape', 'categorical')
_SIZE = Factor('size', 'categorical')
_MATERIAL = Factor('material', 'categorical')
_VISIBILITY = Factor('visibility', 'categorical')  # 1: the entity is present
_POSITION = (Factor('x'), Factor('y'))
_RGB = Factor('color', width=3)

# family of data sets -> factors, in record order
FAMILIES: dict[str, tuple[Factor, ...]] = {
  'tetrominoes': (*_POSITION, _SHAPE, _RGB, _VISIBILITY),
  'multi_dsprites': (
    *_POSITION,
    _SHAPE,
    _RGB,
    Factor('orientation'),
    Factor('scale'),
    _VISIBILITY,
  ),
  'clevr': (
    *_POSITION,
    Factor('z'),
    Factor('pixel_coords', width=3),
    Factor('rotation'),
    _SIZE,
    _MATERIAL,
    _SHAPE,
    Factor('color', 'categorical'),
    _VISIBILITY,
  ),
  'clevrtex': (_MATERIAL, _SHAPE, _SIZE, Factor('rotation'), _VISIBILITY),
}


def object_set(
  about: About,
  family: str,
  side: int,
  entities: int,
  *,
  categories: Mapping[str, Sequence[str]] | None = None,
  **facts: Any,
) -> Contents:
  """Assembles the contents of a multi-object data set.

  A record has the fields `image`, `segmentation` [H, W, 1] and `factor_<name>` [E] or [E, n].

  Args:
    about: as in `make_contents`.
    family: key of `FAMILIES`.
    side: height and width of a picture.
    entities: largest number of entities of a picture, background included.
    categories: factor -> names of its values from 1 on, where known.
    facts: other arguments of `make_contents`.
  """
  fields = {
    'image': Field('uint8', (side, side, 3)),
    'segmentation': Field('uint8', (side, side, 1)),
    **{
      f'factor_{factor.name}': Field('float32', shape_of(factor, entities))
      for factor in FAMILIES[family]
    },
  }
  details = _details(family, entities, categories or {})
  return make_contents(about, fields=fields, details=details, **facts)


def pack(
  family: str, entities: int, present: Sequence[Mapping[str, float | Sequence[float]]]
) -> dict[str, np.ndarray]:
  """Packs factors into the fields of a record, float32 [E] or [E, n].

  Args:
    family: key of `FAMILIES`.
    entities: E, at least the number of present entities.
    present: factors of the background, then of each object; missing factors become zeros.
      `visibility` is filled in.
  """
  arrays = {}
  for factor in FAMILIES[family]:
    array = np.zeros(shape_of(factor, entities), np.float32)
    for number, entity in enumerate(present):
      array[number] = 1 if factor is _VISIBILITY else entity.get(factor.name, 0)
    arrays[f'factor_{factor.name}'] = array
  return arrays


def _details(family: str, entities: int, categories: Mapping[str, Sequence[str]]) -> dict[str, Any]:
  """Returns the `details` of the data card about the entities, as JSON values."""
  described = {}
  for factor in FAMILIES[family]:
    described[factor.name] = {'width': factor.width, 'kind': factor.kind}
    if factor.name in categories:
      described[factor.name]['categories'] = list(categories[factor.name])
  return {'entities': entities, 'factors': described}


def masks_to_segmentation(masks: np.ndarray) -> np.ndarray:
  """Returns the number of the entity that each pixel belongs to.

  Args:
    masks: uint8 [E, H, W, 1], 255 where an entity is visible and 0 elsewhere.

  Returns:
    uint8 [H, W, 1].

  Raises:
    DataPrepError: a value is neither 0 nor 255, or a pixel belongs to no entity or to several.
  """
  odd = (masks != 0) & (masks != 255)
  if odd.any():
    entity, row, column, _ = np.argwhere(odd)[0]
    raise DataPrepError(
      f'mask {entity} holds {masks[entity, row, column, 0]} at row {row}, column {column}, but '
      'masks must hold 0 or 255 only; they must not be resized or compressed with loss'
    )
  claims = (masks == 255).sum(0)
  if (claims != 1).any():
    row, column, _ = np.argwhere(claims != 1)[0]
    raise DataPrepError(
      f'the pixel at row {row}, column {column} belongs to {claims[row, column, 0]} of '
      f'{len(masks)} masks, but must belong to exactly one; take the masks of the visible parts, '
      'with the background among them'
    )
  return masks.argmax(0).astype(np.uint8)


def shape_of(factor: Factor, entities: int) -> tuple[int, ...]:
  """Returns the shape of a factor's array: [E] or [E, n]."""
  return (entities,) if factor.width == 1 else (entities, factor.width)
