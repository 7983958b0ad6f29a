"""Records of video sequences: consecutive chunks of equal length, each with its position."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from data_prep.core.contents import Contents, Example, Field, Split, View, make_contents
from data_prep.core.request import About

CHUNK = 20  # frames per record


@dataclasses.dataclass(frozen=True)
class Clips:
  """Examples of a split of videos; each video is made once for all of its requested chunks.

  Attributes:
    film: returns a whole sequence, uint8 [frames, H, W, C], for its number; must pickle.
    ends: for each sequence, the number of the first record behind it.
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
          'video': _padded(video[first : first + CHUNK]),
          'sequence': np.int64(sequence),
          'start': np.int64(first),
        }
      start, sequence = last, sequence + 1


def split_of_film(film: Callable[[int], np.ndarray], frames: Sequence[int] | np.ndarray) -> Split:
  """Makes a split of videos with the lengths `frames`; records are ordered by (sequence, start).

  If a length is not a multiple of `CHUNK`, black frames fill the last record of the sequence.
  """
  ends = np.cumsum(-(-np.asarray(frames) // CHUNK))
  return Split(int(ends[-1]), Clips(film, ends))


def video_set(
  about: About,
  shape: tuple[int, int, int],
  frames: Mapping[str, int | Sequence[int]],
  *,
  splits: Mapping[str, Split],
  views: Mapping[str, View] | None = None,
  **facts: Any,
) -> Contents:
  """Assembles the contents of a data set of videos.

  A record is a chunk, the number of its sequence in the split, and the number of its first frame.

  Args:
    about: as in `make_contents`.
    shape: height, width and channels of a frame.
    frames: split -> length of all its sequences, or of each; readers need it to join chunks.
    splits: from `split_of_film`.
    views: by default `train`, and `valid` and `test`, which both are the split `test`.
    facts: other arguments of `make_contents`.
  """
  fields = {
    'video': Field('uint8', (CHUNK, *shape)),
    'sequence': Field('int64', ()),
    'start': Field('int64', ()),
  }
  details = {'video': {'chunk': CHUNK, 'frames': dict(frames)}}
  return make_contents(
    about,
    fields=fields,
    splits=splits,
    views=views or _views(),
    details=details,
    compression='zstd',
    **facts,
  )


def _views() -> dict[str, View]:
  """Returns the views of a set that has the splits `train` and `test`."""
  return {
    'train': View('train', 'the whole split'),
    'valid': View('test', 'the whole split test, which serves as validation as in the paper'),
    'test': View('test', 'the whole split'),
  }


def _padded(chunk: np.ndarray) -> np.ndarray:
  """Fills a chunk up to `CHUNK` frames with black ones."""
  missing = CHUNK - len(chunk)
  return np.pad(chunk, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else chunk
