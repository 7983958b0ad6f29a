"""The pickled batches of CIFAR-10, read by an unpickler that knows nothing but NumPy arrays."""

import io
import pickle
from typing import Any

import numpy as np

from data_prep.errors import DataPrepError


def read_batch(data: bytes, origin: str) -> dict[bytes, Any]:
  """The dict of a batch file; its keys are bytes, as Python 2 wrote them.

  Args:
    data: the bytes of the file.
    origin: what to call it in messages.

  Raises:
    DataPrepError: the pickle asks for anything but NumPy arrays and plain values, or is damaged.
  """
  try:
    found = _Restricted(io.BytesIO(data), encoding='bytes').load()
  except DataPrepError as error:
    raise DataPrepError(f'{origin} {error}') from error
  except Exception as error:  # damage shows as many types
    raise DataPrepError(f'{origin} is a damaged pickle ({error}); fetch it anew') from error
  if not isinstance(found, dict):
    raise DataPrepError(f'{origin} must hold a dict, not {type(found).__name__}')
  return {key.encode() if isinstance(key, str) else key: value for key, value in found.items()}


class _Restricted(pickle.Unpickler):
  """Only what builds a NumPy array of numbers; a pickle may otherwise run any program."""

  def find_class(self, module: str, name: str) -> Any:
    allowed = {
      ('numpy', 'ndarray'): np.ndarray,
      ('numpy', 'dtype'): np.dtype,
      ('numpy.core.multiarray', '_reconstruct'): np._core.multiarray._reconstruct,
      ('numpy._core.multiarray', '_reconstruct'): np._core.multiarray._reconstruct,
      ('_codecs', 'encode'): _latin1,
    }
    if (module, name) not in allowed:
      raise DataPrepError(
        f'asks for {module}.{name}, which a batch of pictures has no use for; it was not read'
      )
    return allowed[module, name]


def _latin1(text: str, encoding: str) -> bytes:
  """How Python 3 pickles bytes in protocol 2."""
  if encoding != 'latin1':
    raise DataPrepError(f'asks for the encoding {encoding!r}, which no batch has; it was not read')
  return text.encode('latin1')
