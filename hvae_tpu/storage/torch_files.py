"""PyTorch's zip archives, read without torch.

An archive holds a pickle and one file per storage (the numbers of one or more tensors). The pickle
may hold tensors and plain values only. Flags (`argparse.Namespace`) become a dict.

Source of the format: `torch.save` of PyTorch 1.6 and later.
"""

import math
from typing import Any
import zipfile

import ml_dtypes
import numpy as np

from hvae_tpu.storage import pickles
from hvae_tpu.storage.pickles import Malformed, Name, short

# A tensor needs about 250 bytes. A byte can make an object of 64, so this also bounds the memory.
MAX_PICKLE = 8 * 2**20
MAX_DIMS = 16
STORAGES = {
  'torch DoubleStorage': np.dtype('<f8'),
  'torch FloatStorage': np.dtype('<f4'),
  'torch HalfStorage': np.dtype('<f2'),
  'torch BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
  'torch LongStorage': np.dtype('<i8'),
  'torch IntStorage': np.dtype('<i4'),
  'torch ShortStorage': np.dtype('<i2'),
  'torch CharStorage': np.dtype('i1'),
  'torch ByteStorage': np.dtype('u1'),
  'torch BoolStorage': np.dtype('?'),
}


def read(archive: zipfile.ZipFile, index: str) -> Any:
  """Returns the saved value: dicts, lists and tuples of arrays, numbers and strings.

  Args:
    archive: an open archive.
    index: file name of the pickle, in whatever folder of the archive.

  Raises:
    Malformed: the pickle asks for anything but tensors in dicts, or contradicts itself.
    zipfile.BadZipFile: bytes are damaged.
  """
  places = [info for info in archive.infolist() if info.filename.rpartition('/')[2] == index]
  if len(places) != 1:
    raise Malformed(f'{len(places)} files {index}, expected one')
  folder = places[0].filename.removesuffix(index)
  if places[0].file_size > MAX_PICKLE:
    raise Malformed(f'{index} has {places[0].file_size:,} bytes, more than {MAX_PICKLE:,}')
  members = {info.filename: info for info in archive.infolist()}
  if len(members) != len(archive.infolist()):
    raise Malformed('a file of the archive occurs twice')
  order = members.get(f'{folder}byteorder')
  if order is not None and archive.read(order).strip() != b'little':
    raise Malformed('it was saved on a big-endian machine')
  return _TensorReader(archive, members, f'{folder}data/').read(archive.read(places[0]))


class _TensorReader(pickles.Reader):
  """Reads tensors beside plain values; each storage is read when a tensor first needs it."""

  contents = 'tensors'
  names = frozenset(
    (
      'collections OrderedDict',
      'torch._utils _rebuild_tensor_v2',
      'torch Size',
      'argparse Namespace',
      *STORAGES,
    )
  )

  def __init__(self, archive: zipfile.ZipFile, members: dict, folder: str):
    super().__init__()
    self._archive, self._members, self._folder = archive, members, folder
    self._storages: dict[str, np.ndarray] = {}
    self._flags: list[dict] = []

  def call(self, name: str, arguments: tuple) -> Any:
    match name, arguments:
      case 'collections OrderedDict', ():
        return {}
      case 'torch._utils _rebuild_tensor_v2', tuple():
        return _tensor(arguments)
      case 'torch Size', (tuple() as size,):
        return size
    return super().call(name, arguments)

  def new(self, name: str, arguments: tuple) -> Any:
    if (name, arguments) != ('argparse Namespace', ()):
      return super().new(name, arguments)
    self._flags.append({})
    return self._flags[-1]

  def set_state(self, target: Any, state: Any) -> None:
    """Fills flags; drops the version numbers of modules, which a state dict carries."""
    if type(target) is not dict:
      raise Malformed('its pickle sets attributes of what is not a dict')
    if any(target is flags for flags in self._flags):
      if type(state) is not dict:
        raise Malformed('its flags are not a dict')
      target.update(state)

  def resolve(self, reference: Any) -> np.ndarray:
    """Returns the numbers of a persistent id ('storage', type, key, device, count)."""
    match reference:
      case ('storage', Name(kind), str(key), str(), int(count)) if kind in STORAGES:
        dtype = STORAGES[kind]
      case _:
        raise Malformed('a reference to a storage is not of the known form')
    info = self._members.get(self._folder + key)
    if info is None:
      raise Malformed(f'storage {key!r} is missing')
    if info.file_size != count * dtype.itemsize:
      raise Malformed(
        f'storage {key!r} should have {count:,} numbers of {dtype}, '
        f'{count * dtype.itemsize:,} bytes, but has {info.file_size:,}'
      )
    if key not in self._storages:
      self._storages[key] = np.frombuffer(self._archive.read(info), dtype)
    if self._storages[key].dtype != dtype:
      raise Malformed(f'storage {key!r} is both {self._storages[key].dtype} and {dtype}')
    return self._storages[key]


def _tensor(arguments: tuple) -> np.ndarray:
  """Returns the view of a storage that `_rebuild_tensor_v2(storage, offset, size, ...)` makes."""
  if len(arguments) not in (6, 7):
    raise Malformed(f'a tensor has {len(arguments)} arguments, expected 6')
  storage, offset, size, stride = arguments[:4]
  if not isinstance(storage, np.ndarray):
    raise Malformed('a tensor has no storage')
  if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)):
    raise Malformed('the size and the strides of a tensor do not belong together')
  numbers = (offset, *size, *stride)
  if len(size) > MAX_DIMS or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
    raise Malformed(f'a tensor has the impossible size {short(size)} or stride {short(stride)}')
  count = math.prod(size)
  last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  if count and (last >= storage.size or count > storage.size):
    raise Malformed(
      f'a tensor of size {short(size)}, strides {short(stride)} and offset {offset} does not fit '
      f'into its storage of {storage.size:,} numbers'
    )
  if not count:
    return np.zeros(size, storage.dtype)
  strides = tuple(step * storage.itemsize for step in stride)
  return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)
