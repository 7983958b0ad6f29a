"""The split that NVAE's scripts draw unseeded and save: `train_test_ind.pt`.

PyTorch saves a zip with the pickle `<folder>/data.pkl`; NumPy arrays stand in that pickle itself.
"""

import pathlib

import numpy as np

from data_prep.errors import DataPrepError
from data_prep.raw import archives, pickled_arrays, recognise


def is_index_file(path: pathlib.Path) -> bool:
  """Tells whether PyTorch saved a file."""
  return recognise.container_of(path) == 'zip' and bool(_find(archives.open_archive(path)))


def read_split(path: pathlib.Path, count: int, held_out: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns (training, held out) indices: the two arrays of a dict that deal out 0 to `count - 1`.

  The longer one must be that of training.

  Raises:
    DataPrepError: no such two arrays, or something else than arrays in the file.
  """
  archive = archives.open_archive(path)
  arrays = pickled_arrays.read(archive.read(_find(archive)[0]), str(path))
  lists = sorted((np.asarray(v) for v in arrays.values() if np.ndim(v) == 1), key=len, reverse=True)
  if [len(one) for one in lists] != [count - held_out, held_out] or np.any(
    np.sort(np.concatenate(lists)) != np.arange(count)
  ):
    raise DataPrepError(
      f'{path} must hold two lists of {count - held_out} and {held_out} indices that deal out the '
      f'{count} pictures, but holds lists of: {", ".join(str(len(one)) for one in lists) or "none"}'
    )
  return lists[0].astype(np.int64), lists[1].astype(np.int64)


def _find(archive: archives.Archive) -> list[int]:
  return [i for i, name in enumerate(archive.names) if name.endswith('/data.pkl')]
