"""The npz batches of the ImageNet family: `data`, uint8 [N, 3 * R * R], three planes a picture.

A batch has up to 1.6 GB, so only one is in memory at a time, in each process.
"""

from collections.abc import Sequence
import dataclasses
import functools
import io
import pathlib

import numpy as np

from data_prep.errors import DataPrepError
from data_prep.raw import archives, recognise
from data_prep.raw.pictures import Numbers


@dataclasses.dataclass(frozen=True)
class Batch:
  """One npz file: loose, or member number `index` of an archive."""

  path: pathlib.Path
  archive: archives.Archive | None = None
  index: int = 0

  @property
  def name(self) -> str:
    """Without folders."""
    return pathlib.PurePosixPath(self.archive.names[self.index] if self.archive else self.path).name

  def read(self) -> bytes:
    """All bytes; DataPrepError if they are damaged."""
    return self.archive.read(self.index) if self.archive else self.path.read_bytes()


@dataclasses.dataclass(frozen=True)
class PlanarPictures:
  """The pictures of several batches, one batch after another; `stops` count them up."""

  batches: tuple[Batch, ...]
  stops: tuple[int, ...]
  size: int
  kind: str = 'npz'

  @property
  def names(self) -> Sequence[str]:
    return Numbers(self.stops[-1])

  def read(self, index: int) -> np.ndarray:
    """One picture, uint8 [size, size, 3]."""
    number = int(np.searchsorted(self.stops, index, side='right'))
    planes = _planes(self.batches[number], self.size)
    place = index - (self.stops[number - 1] if number else 0)
    return planes[place].reshape(3, self.size, self.size).transpose(1, 2, 0)


def open_batches(paths: Sequence[pathlib.Path], size: int) -> PlanarPictures:
  """The pictures of all batches in these files, folders, zips and tars, sorted by batch name.

  Raises:
    DataPrepError: no batches there, two of one name, or a damaged one.
  """
  batches = sorted((b for path in paths for b in _find(path)), key=lambda batch: batch.name)
  for one, other in zip(batches, batches[1:], strict=False):
    if one.name == other.name:
      raise DataPrepError(
        f'{one.path} and {other.path} both hold {one.name}; give each batch only once'
      )
  counts = [len(_planes(batch, size)) for batch in batches]
  return PlanarPictures(tuple(batches), tuple(np.cumsum(counts).tolist()), size)


def _find(path: pathlib.Path) -> list[Batch]:
  if recognise.container_of(path) == 'npz':
    return [Batch(path)]
  archive = archives.open_archive(path)
  found = [i for i, name in enumerate(archive.names) if name.endswith('.npz')]
  if not found:
    what = 'PNG files' if any(n.endswith('.png') for n in archive.names) else 'no npz files'
    raise DataPrepError(
      f"{path} holds {what}, but the box-filtered pictures come as npz; van den Oord's PNG files "
      'are another data set, imagenet32 or imagenet64'
    )
  return [Batch(path, archive, i) for i in found]


@functools.lru_cache(maxsize=1)
def _planes(batch: Batch, size: int) -> np.ndarray:
  """The array `data` of a batch, checked."""
  origin = f'{batch.path}: {batch.name}' if batch.archive else str(batch.path)
  data = batch.read()
  try:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
      planes = arrays['data']
  except Exception as error:  # zip and header damage shows as many types
    raise DataPrepError(f'{origin} has no readable array `data` ({error})') from error
  if planes.dtype != np.uint8 or planes.ndim != 2 or planes.shape[1] != 3 * size**2:
    raise DataPrepError(
      f'{origin}: data must be uint8 [N, {3 * size**2}], but is {planes.dtype} {list(planes.shape)}'
    )
  return planes
