"""PyTorch's zip archives, written without torch, sound ones and others.

A pickle is put together from its opcodes, so that a test can write any nonsense.
"""

from collections.abc import Mapping
import io
from pathlib import Path
import struct
import zipfile

import numpy as np

STORAGES = {'float32': 'FloatStorage', 'float64': 'DoubleStorage', 'int64': 'LongStorage'}
EMPTY_DICT, MARK, SET_ITEMS, TUPLE, REDUCE, PERSISTENT = b'}', b'(', b'u', b't', b'R', b'Q'
EMPTY_TUPLE, BUILD, FALSE, STOP, START = b')', b'b', b'\x89', b'.', b'\x80\x02'
NEW_OBJECT = b'\x81'


def text(value: str) -> bytes:
  encoded = value.encode()
  return b'X' + struct.pack('<I', len(encoded)) + encoded


def number(value: int) -> bytes:
  if -(2**31) <= value < 2**31:
    return b'J' + struct.pack('<i', value)
  return b'\x8a\x09' + value.to_bytes(9, 'little', signed=True)


def name(module: str, function: str) -> bytes:
  return b'c' + f'{module}\n{function}\n'.encode()


def tuple_of(*items: bytes) -> bytes:
  return MARK + b''.join(items) + TUPLE


ORDERED_DICT = name('collections', 'OrderedDict') + EMPTY_TUPLE + REDUCE


def storage(key: str, count: int, kind: str = 'FloatStorage') -> bytes:
  parts = text('storage'), name('torch', kind), text(key), text('cpu'), number(count)
  return tuple_of(*parts) + PERSISTENT


def tensor(stored: bytes, offset: int, size: tuple, stride: tuple) -> bytes:
  """Returns a call of `_rebuild_tensor_v2`."""
  numbers = lambda values: tuple_of(*map(number, values))
  arguments = stored, number(offset), numbers(size), numbers(stride), FALSE, ORDERED_DICT
  return name('torch._utils', '_rebuild_tensor_v2') + tuple_of(*arguments) + REDUCE


def array(key: str, value: np.ndarray) -> bytes:
  """Returns a whole contiguous array that has a storage of its own."""
  stride = tuple(s // value.itemsize for s in np.asarray(value, order='C').strides)
  stored = storage(key, value.size, STORAGES[value.dtype.name])
  return tensor(stored, 0, value.shape, stride)


def ordered_dict(items: Mapping[str, bytes]) -> bytes:
  pairs = b''.join(text(key) + value for key, value in items.items())
  return ORDERED_DICT + MARK + pairs + SET_ITEMS


def archive(pickled: bytes, storages: Mapping[str, bytes], folder: str = 'archive') -> bytes:
  """Returns the zip file around a pickle without its first and last opcode."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as file:
    file.writestr(f'{folder}/data.pkl', START + pickled + STOP)
    file.writestr(f'{folder}/byteorder', 'little')
    for key, data in storages.items():
      file.writestr(f'{folder}/data/{key}', data)
    file.writestr(f'{folder}/version', '3\n')
  return buffer.getvalue()


def state_dict(tensors: Mapping[str, np.ndarray]) -> bytes:
  """Returns the bytes that `torch.save(module.state_dict(), path)` writes."""
  items = {key: array(str(i), value) for i, (key, value) in enumerate(tensors.items())}
  # Modules note their versions as an attribute of the dict.
  versions = EMPTY_DICT + MARK + text('_metadata') + ORDERED_DICT + SET_ITEMS + BUILD
  return archive(
    ordered_dict(items) + versions,
    {str(i): value.tobytes() for i, value in enumerate(tensors.values())},
  )


def write(path: Path, data: bytes) -> Path:
  path.write_bytes(data)
  return path
