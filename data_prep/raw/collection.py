"""Collections of pictures or videos, in whatever container: names, and an array for each index.

Collections open lazily and pickle small, so that worker processes can read in parallel.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Protocol

import numpy as np

from data_prep.raw import archives


class Collection(Protocol):
  """Pictures or videos in a fixed order.

  Attributes:
    names: their names in the container, else their numbers as strings.
    kind: kind of the container, in words.
  """

  names: Sequence[str]
  kind: str

  def read(self, index: int) -> np.ndarray:
    """Returns one picture, uint8 [H, W, C], or one video, uint8 [T, H, W, C].

    Raises:
      DataPrepError: it is damaged.
    """


@dataclasses.dataclass(frozen=True)
class Numbers(Sequence):
  """The names '0', '1', ..., made on demand."""

  count: int

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, index: int) -> str:
    return str(range(self.count)[index])


@dataclasses.dataclass(frozen=True)
class Members:
  """Some files of a folder, zip or tar; `indices` are positions in `archive.names`."""

  archive: archives.Archive
  indices: tuple[int, ...]

  @functools.cached_property
  def names(self) -> tuple[str, ...]:
    return tuple(self.archive.names[index] for index in self.indices)

  def read_file(self, index: int) -> tuple[bytes, str]:
    """Returns the bytes of a file, and its name for messages."""
    return self.archive.read(self.indices[index]), f'{self.archive.path}: {self.names[index]}'
