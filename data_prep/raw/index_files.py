"""Reader of `train_test_ind.pt`, the random split that NVAE's scripts save.

PyTorch saves a zip with the pickle `<folder>/data.pkl`; that pickle holds NumPy arrays whole.
"""

import pathlib

import numpy as np

from data_prep.errors import DataPrepError
from data_prep.raw import archives, pickled_arrays, recognise


def is_index_file(path: pathlib.Path) -> bool:
  """Returns whether PyTorch saved this file."""
  return recognise.container_of(path) == 'zip' and bool(
    _pickle_indices(archives.open_archive(path))
  )


def read_split(path: pathlib.Path, count: int, held_out: int) -> tuple[np.ndarray, np.ndarray]:
  """Reads (training, held out) indices: two arrays of a dict that partition 0 to `count - 1`.

  The longer array holds the training indices.

  Raises:
    DataPrepError: the file has no such two arrays, or holds other objects than arrays.
  """
  archive = archives.open_archive(path)
  arrays = pickled_arrays.read(archive.read(_pickle_indices(archive)[0]), str(path))
  lists = sorted((np.asarray(v) for v in arrays.values() if np.ndim(v) == 1), key=len, reverse=True)
  if [len(one) for one in lists] != [count - held_out, held_out] or np.any(
    np.sort(np.concatenate(lists)) != np.arange(count)
  ):
    raise DataPrepError(
      f'{path} must hold two lists of {count - held_out} and {held_out} indices that deal out the '
      f'{count} pictures, but holds lists of: {", ".join(str(len(one)) for one in lists) or "none"}'
    )
  return lists[0].astype(np.int64), lists[1].astype(np.int64)


def _pickle_indices(archive: archives.Archive) -> list[int]:
  return [i for i, name in enumerate(archive.names) if name.endswith('/data.pkl')]
