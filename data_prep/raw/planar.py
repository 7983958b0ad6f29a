"""npz batches of the ImageNet family: an array `data`, uint8 [N, 3 * R * R], of colour planes.

A batch has up to 1.6 GB, so each process holds only one in memory at a time.
"""

from collections.abc import Sequence
import dataclasses
import functools
import io
import pathlib

import numpy as np

from data_prep.errors import DataPrepError
from data_prep.raw import archives, recognise
from data_prep.raw.collection import Numbers


@dataclasses.dataclass(frozen=True)
class Batch:
  """One npz file: a plain file, or member number `index` of an archive."""

  path: pathlib.Path
  archive: archives.Archive | None = None
  index: int = 0

  @property
  def name(self) -> str:
    """File name without folders."""
    return pathlib.PurePosixPath(self.archive.names[self.index] if self.archive else self.path).name

  def read(self) -> bytes:
    """Returns all bytes; raises DataPrepError if they are damaged."""
    return self.archive.read(self.index) if self.archive else self.path.read_bytes()


@dataclasses.dataclass(frozen=True)
class PlanarPictures:
  """Pictures of several batches in order; `stops` is their cumulative number after each batch."""

  batches: tuple[Batch, ...]
  stops: tuple[int, ...]
  size: int
  kind: str = 'npz'

  @property
  def names(self) -> Sequence[str]:
    return Numbers(self.stops[-1])

  def read(self, index: int) -> np.ndarray:
    """Returns one picture, uint8 [size, size, 3]."""
    number = int(np.searchsorted(self.stops, index, side='right'))
    planes = _planes(self.batches[number], self.size)
    row = index - (self.stops[number - 1] if number else 0)
    return planes[row].reshape(3, self.size, self.size).transpose(1, 2, 0)


def open_batches(paths: Sequence[pathlib.Path], size: int) -> PlanarPictures:
  """Opens all batches in these files, folders, zips and tars, sorted by batch name.

  Raises:
    DataPrepError: there are no batches, two have one name, or one is damaged.
  """
  batches = sorted((b for path in paths for b in _find_batches(path)), key=lambda batch: batch.name)
  for one, other in zip(batches, batches[1:], strict=False):
    if one.name == other.name:
      raise DataPrepError(
        f'{one.path} and {other.path} both hold {one.name}; give each batch only once'
      )
  counts = [len(_planes(batch, size)) for batch in batches]
  return PlanarPictures(tuple(batches), tuple(np.cumsum(counts).tolist()), size)


def _find_batches(path: pathlib.Path) -> list[Batch]:
  """Lists the batches in one file, folder, zip or tar."""
  if recognise.container_of(path) == 'npz':
    return [Batch(path)]
  archive = archives.open_archive(path)
  indices = [i for i, name in enumerate(archive.names) if name.endswith('.npz')]
  if not indices:
    content = 'PNG files' if any(n.endswith('.png') for n in archive.names) else 'no npz files'
    raise DataPrepError(
      f"{path} holds {content}, but the box-filtered pictures come as npz; van den Oord's PNG "
      'files are another data set, imagenet32 or imagenet64'
    )
  return [Batch(path, archive, i) for i in indices]


@functools.lru_cache(maxsize=1)
def _planes(batch: Batch, size: int) -> np.ndarray:
  """Reads and checks the array `data` of a batch."""
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
