"""Video sequences as records: consecutive chunks of equal length, each with its place."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from data_prep.core.contents import Example, Field, Split, View

CHUNK = 20  # frames per record


@dataclasses.dataclass(frozen=True)
class Clips:
  """The examples of a split of films; a film is made once for all of its chunks that are asked for.

  Attributes:
    film: makes a whole sequence, uint8 [frames, H, W, C], from its number; must pickle.
    ends: for each sequence, the number of the record behind its last.
  """

  film: Callable[[int], np.ndarray]
  ends: np.ndarray

  def __call__(self, start: int, stop: int) -> Iterator[Example]:
    sequence = int(np.searchsorted(self.ends, start, side='right'))
    while start < stop:
      video = self.film(sequence)
      before = int(self.ends[sequence - 1]) if sequence else 0
      last = min(stop, int(self.ends[sequence]))
      for record in range(start, last):
        first = (record - before) * CHUNK
        yield {
          'video': _filled(video[first : first + CHUNK]),
          'sequence': np.int64(sequence),
          'start': np.int64(first),
        }
      start, sequence = last, sequence + 1


def fields(height: int, width: int, channels: int) -> dict[str, Field]:
  """A chunk, the number of its sequence in the split, and the number of its first frame there."""
  return {
    'video': Field('uint8', (CHUNK, height, width, channels)),
    'sequence': Field('int64', ()),
    'start': Field('int64', ()),
  }


def split_of_film(film: Callable[[int], np.ndarray], frames: Sequence[int] | np.ndarray) -> Split:
  """A split of one film for each entry of `frames`, its length, in order of (sequence, start).

  Where a length is not a multiple of `CHUNK`, the last record is filled up with black frames.
  """
  ends = np.cumsum(-(-np.asarray(frames) // CHUNK))
  return Split(int(ends[-1]), Clips(film, ends))


def views() -> dict[str, View]:
  """The views of a set that has the splits `train` and `test`."""
  return {
    'train': View('train', 'the whole split'),
    'valid': View('test', 'the whole split test, which serves as validation as in the paper'),
    'test': View('test', 'the whole split'),
  }


def details(**frames: int | Sequence[int]) -> Mapping[str, Any]:
  """What a reader must know to join chunks: frames per record, and per sequence of each split.

  A number stands for all sequences of a split, a list has an entry for each.
  """
  return {'video': {'chunk': CHUNK, 'frames': frames}}


def _filled(chunk: np.ndarray) -> np.ndarray:
  missing = CHUNK - len(chunk)
  return np.pad(chunk, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else chunk
