"""Pickled dicts of NumPy arrays: the batches of CIFAR-10 and the index lists of NVAE."""

from typing import Any

from data_prep.errors import DataPrepError
from hvae_tpu.storage import pickles


def read(data: bytes, origin: str) -> dict[bytes, Any]:
  """Returns the dict of a file; its keys are bytes, as Python 2 wrote them.

  Args:
    data: the bytes of the file.
    origin: the file's name for messages.

  Raises:
    DataPrepError: the pickle asks for anything but NumPy arrays and plain values, or is damaged.
  """
  try:
    arrays = pickles.read_arrays(data)
  except pickles.Malformed as error:
    raise DataPrepError(
      f'{origin} is a damaged pickle or another file: {error}; download it again'
    ) from error
  return {key.encode() if isinstance(key, str) else key: value for key, value in arrays.items()}
