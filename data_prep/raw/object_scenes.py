"""Readers of the scenes of multi-object data sets: gzipped TFRecords and h5 files.

A scene is `image` uint8 [H, W, C], `masks` uint8 [E, H, W, 1] with 0 or 255, and factors by name,
float32 [E] or [E, n].
"""

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import pathlib
from typing import Any, Protocol

import h5py
import numpy as np

from data_prep.errors import DataPrepError
from data_prep.raw import tfrecords

Scene = dict[str, np.ndarray]


class SceneFile(Protocol):
  """File of scenes; it pickles.

  Attributes:
    path: path of the file.
  """

  path: pathlib.Path

  def read(self, numbers: np.ndarray) -> Iterator[Scene]:
    """Yields the scenes of these increasing numbers.

    Raises:
      DataPrepError: a scene is damaged or missing.
    """


@dataclasses.dataclass(frozen=True)
class Layout:
  """Layout of a scene in a tf.Example.

  Attributes:
    image: shape of the picture.
    masks: shape of the masks as stored.
    entity_axis: axis of the entities in the masks.
    factors: name -> shape.
  """

  image: tuple[int, ...]
  masks: tuple[int, ...]
  entity_axis: int
  factors: Mapping[str, tuple[int, ...]]

  def parse(self, payload: bytes, origin: str) -> Scene:
    """Parses a record; raises DataPrepError if a feature is missing or of another length."""
    example = _parse_example(payload, origin)
    masks = _pixels(example, 'mask', self.masks, origin)
    return {
      'image': _pixels(example, 'image', self.image, origin),
      'masks': np.moveaxis(masks, self.entity_axis, 0),
      **{
        name: _shaped(example, name, shape, origin).astype(np.float32)
        for name, shape in self.factors.items()
      },
    }

  def parse_factor(self, payload: bytes, name: str, origin: str) -> np.ndarray:
    """Parses one factor of a record; raises DataPrepError as `parse` does."""
    return _shaped(_parse_example(payload, origin), name, self.factors[name], origin)


@dataclasses.dataclass(frozen=True)
class RecordScenes:
  """A gzipped TFRecord file. It allows sequential access only, so calls should come in order."""

  path: pathlib.Path
  layout: Layout

  def read(self, numbers: np.ndarray) -> Iterator[Scene]:
    selected = set(numbers.tolist())
    for index, payload in self._payloads(int(numbers[0]), int(numbers[-1]) + 1):
      if index in selected:
        yield self.layout.parse(payload, f'{self.path}: record {index}')

  def factor(self, name: str, stop: int) -> np.ndarray:
    """Reads one factor of the first `stop` scenes: [stop, E] or [stop, E, n]."""
    return np.stack(
      [
        self.layout.parse_factor(payload, name, f'{self.path}: record {index}')
        for index, payload in self._payloads(0, stop)
      ]
    )

  def _payloads(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Yields (number, record) of a range; continues the stream of the previous call if possible."""
    position, stream = _streams.pop(self.path, (0, None))
    if stream is None or position > start:
      position, stream = 0, tfrecords.read_gzipped(self.path)
    while position < stop:
      payload = next(stream, None)
      if payload is None:
        raise DataPrepError(
          f'{self.path} holds {position} scenes, but {stop} are needed; it is truncated or is of '
          'another data set'
        )
      position += 1
      if position > start:
        yield position - 1, payload
    _streams[self.path] = position, stream


@dataclasses.dataclass(frozen=True)
class ArrayScenes:
  """A group of an h5 file with the arrays `imgs`, `masks` and perhaps `factors`.

  Attributes:
    columns: factor -> its columns in `factors`. Factors are NaN if the file has none.
  """

  path: pathlib.Path
  group: str
  columns: Mapping[str, tuple[int, ...]]

  def __len__(self) -> int:
    return len(_open_h5(self.path)[self.group]['imgs'])

  def read(self, numbers: np.ndarray) -> Iterator[Scene]:
    group = _open_h5(self.path)[self.group]
    for index in numbers.tolist():
      try:
        image, masks = group['imgs'][index], group['masks'][index]
        rows = group['factors'][index] if 'factors' in group else None
      except Exception as error:  # damage shows as many types
        raise DataPrepError(
          f'{self.path}: scene {index} cannot be read ({error}); download the file again'
        ) from error
      scene = {
        'image': _to_uint8(image, self.path, index),
        'masks': _to_uint8(masks, self.path, index),
      }
      for name, columns in self.columns.items():
        values = np.full((len(masks), len(columns)), np.nan) if rows is None else rows[:, columns]
        values = values.astype(np.float32)
        scene[name] = values[:, 0] if len(columns) == 1 else values
      yield scene


def open_group(
  path: pathlib.Path,
  role: str,
  columns: Mapping[str, tuple[int, ...]],
  image: tuple[int, ...],
) -> ArrayScenes:
  """Opens the group of an h5 file for a role: the group of that name, else the only one.

  Some published files keep their training scenes in a group `test`, so the name of the file decides
  about the role.

  Args:
    path: the h5 file.
    role: `train` or `test`.
    columns: as in `ArrayScenes`.
    image: shape that pictures must have.

  Raises:
    DataPrepError: the file is no h5 file, has no such group, or its arrays are missing or have
      other shapes.
  """
  file = _open_h5(path)
  groups = [name for name in _GROUPS if isinstance(file.get(name), h5py.Group)]
  if role not in groups and len(groups) != 1:
    raise DataPrepError(
      f'{path} must have a group {role}, or a single one of {", ".join(_GROUPS)}, but has: '
      f'{", ".join(groups) or "none of them"}'
    )
  name = role if role in groups else groups[0]
  _check_shapes(path, file[name], columns, image)
  return ArrayScenes(path, name, columns)


def _check_shapes(
  path: pathlib.Path,
  group: h5py.Group,
  columns: Mapping[str, tuple[int, ...]],
  image: tuple[int, ...],
) -> None:
  try:
    shapes = {name: one.shape for name, one in group.items() if isinstance(one, h5py.Dataset)}
  except Exception as error:  # damage shows as many types
    raise DataPrepError(f'{path} is a damaged h5 file ({error}); download it again') from error
  if not {'imgs', 'masks'} <= set(shapes):
    raise DataPrepError(
      f'{path}: the group {group.name[1:]} must hold imgs and masks, but holds: '
      f'{", ".join(map(str, group)) or "nothing"}; scenes without masks are another data set'
    )
  images, masks = shapes['imgs'], shapes['masks']
  height, width, channels = image
  if images[1:] != image or len(masks) != 5 or (masks[0], *masks[2:]) != (*images[:3], 1):
    raise DataPrepError(
      f'{path}: imgs must be [N, {height}, {width}, {channels}] and masks [N, E, {height}, '
      f'{width}, 1], but are {list(images)} and {list(masks)}; the file is of another data set'
    )
  expected = (images[0], masks[1], sum(len(one) for one in columns.values()))
  if shapes.get('factors', expected) != expected:
    raise DataPrepError(
      f'{path}: factors must be {list(expected)}, but are {list(shapes["factors"])}; the file is '
      'of another data set'
    )


_GROUPS = ('train', 'val', 'test')
# Open streams of this process: path -> (number of the next record, stream).
_streams: dict[pathlib.Path, tuple[int, Any]] = {}


@functools.lru_cache(maxsize=4)
def _open_h5(path: pathlib.Path) -> h5py.File:
  try:
    return h5py.File(path, 'r')
  except OSError as error:
    raise DataPrepError(
      f'{path} is a damaged or truncated h5 file ({error}); download it again'
    ) from error


def _parse_example(payload: bytes, origin: str) -> dict[str, tfrecords.Value]:
  try:
    return tfrecords.parse_example(payload)
  except ValueError as error:
    raise DataPrepError(
      f'{origin} is not a tf.Example ({error}); download the file again'
    ) from error


def _pixels(
  example: Mapping[str, tfrecords.Value], name: str, shape: tuple[int, ...], origin: str
) -> np.ndarray:
  array = _shaped(example, name, shape, origin)
  if array.dtype != np.uint8:
    raise DataPrepError(
      f'{origin}: {name} must be bytes, but is {array.dtype}; the file is of another data set'
    )
  return array


def _shaped(
  example: Mapping[str, tfrecords.Value], name: str, shape: tuple[int, ...], origin: str
) -> np.ndarray:
  if name not in example:
    hint = '; scenes without masks are another data set' if name == 'mask' else ''
    raise DataPrepError(f'{origin} has no feature {name}, only: {", ".join(example)}{hint}')
  value = example[name]
  array = np.frombuffer(b''.join(value), np.uint8) if isinstance(value, list) else value
  if array.size != np.prod(shape):
    raise DataPrepError(
      f'{origin}: {name} must have {np.prod(shape)} values for the shape {list(shape)}, but has '
      f'{array.size}; the file is of another data set or variant'
    )
  return array.reshape(shape)


def _to_uint8(values: np.ndarray, path: pathlib.Path, index: int) -> np.ndarray:
  """Converts values 0 to 255 to uint8."""
  if values.dtype == np.uint8:
    return values
  if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
    raise DataPrepError(
      f'{path}: scene {index} must hold values from 0 to 255, but holds {values.min()} to '
      f'{values.max()}; the file is of another data set'
    )
  return np.rint(values).astype(np.uint8)
