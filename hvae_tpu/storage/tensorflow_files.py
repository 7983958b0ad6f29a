"""Checkpoints of TensorFlow: PREFIX.index (names, shapes, places) and PREFIX.data-* (the numbers).

TensorFlow itself reads them; it is imported only for that.
"""

import glob
from pathlib import Path
import re

import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.storage import quiet_tensorflow

PART = re.compile(r'\.(index|meta|data-\d{5}-of-\d{5})$')


def find(path: Path) -> Path | None:
  """Returns the prefix of the checkpoint at a path; None if something else is there.

  Args:
    path: PREFIX, one of its files, or a folder with a single checkpoint.

  Raises:
    UserError: a folder with several checkpoints.
  """
  if path.is_dir():
    indices = sorted(path.glob('*.index'))
    if len(indices) > 1:
      names = ', '.join(index.stem for index in indices[:5])
      raise UserError(
        f'{path} holds {len(indices)} TensorFlow checkpoints ({names}); give the path of one of '
        f'them'
      )
    return indices[0].with_suffix('') if indices else None
  if path.is_file() and not PART.search(path.name):
    return None
  prefix = path.with_name(PART.sub('', path.name))
  return prefix if Path(f'{prefix}.index').is_file() else None


def parts(prefix: Path) -> list[Path]:
  """Returns the files of a checkpoint, the index first.

  Raises:
    UserError: some are missing.
  """
  data = sorted(map(Path, glob.glob(f'{glob.escape(str(prefix))}.data-?????-of-?????')))
  expected = [f'{prefix}.data-00000-of-00001']
  if data:
    _, _, total = data[0].name.rpartition('-')
    expected = [f'{prefix}.data-{i:05}-of-{total}' for i in range(int(total))]
  if missing := [path for path in expected if not Path(path).is_file()]:
    raise UserError(
      f'{prefix}.index is there, but not {missing[0]}, which holds the numbers; copy all files of '
      f'the checkpoint'
    )
  return [Path(f'{prefix}.index'), *map(Path, expected)]


def read(prefix: Path) -> dict[str, np.ndarray]:
  """Reads all tensors of a checkpoint, by name.

  Raises:
    UserError: TensorFlow is not installed.
    ValueError: the checkpoint is damaged.
  """
  try:
    tf = quiet_tensorflow.load()
  except ImportError as error:
    raise UserError(
      f'{prefix}.index is of a TensorFlow checkpoint, which only tensorflow can read: install it '
      f'(pip install tensorflow-cpu), or save the variables as an .npz file by their names'
    ) from error
  try:
    reader = tf.train.load_checkpoint(str(prefix))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    claimed = sum(_bytes(shape, dtypes[name].as_numpy_dtype) for name, shape in shapes.items())
    held = sum(path.stat().st_size for path in parts(prefix)[1:])
    if claimed > held:
      raise ValueError(f'{claimed:,} bytes are said to be stored in {held:,}')
    return {name: np.asarray(reader.get_tensor(name)) for name in sorted(shapes)}
  except Exception as error:  # TensorFlow raises anything
    raise ValueError(f'{type(error).__name__}: {error}') from error


def _bytes(shape: list[int], dtype: type) -> int:
  """Returns the least number of bytes of a tensor; a string may be short."""
  return int(np.prod(shape, dtype=object)) * (1 if dtype is object else np.dtype(dtype).itemsize)
