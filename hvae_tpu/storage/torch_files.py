"""PyTorch's zip archives, read without torch.

An archive holds a pickle and one file per storage (the numbers of one or more tensors). The pickle
is interpreted here, by the few instructions that a dict of tensors consists of; there is no way
from it to any function but those below. Flags (`argparse.Namespace`) become a plain dict.

Source of the format: `torch.save` of PyTorch 1.6 and later; opcodes: Python's `pickletools`.
"""

from collections.abc import Callable, Mapping
import enum
import math
import pickletools
import reprlib
from typing import Any, NamedTuple
import zipfile

import ml_dtypes
import numpy as np

# A tensor needs about 250 bytes. A byte can make an object of 64, so this also bounds the memory.
MAX_PICKLE = 8 * 2**20
MAX_DIMS = 16


class Malformed(ValueError):
  """What is wrong with a file, in words."""


class Call(enum.Enum):
  """What a pickle may ask for, by its name there."""

  DICT = 'collections OrderedDict'
  TENSOR = 'torch._utils _rebuild_tensor_v2'
  SIZE = 'torch Size'
  FLAGS = 'argparse Namespace'


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
GLOBALS = {**{call.value: call for call in Call}, **STORAGES}


def read(archive: zipfile.ZipFile, index: str) -> Any:
  """What was saved: dicts, lists and tuples of arrays, numbers and strings.

  Args:
    archive: open.
    index: name of the pickle, in whatever folder of the archive.

  Raises:
    Malformed: it asks for anything but tensors in dicts, or contradicts itself.
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
  return _Machine(_Storages(archive, members, f'{folder}data/')).run(archive.read(places[0]))


class _Storages:
  """The storages of an archive, by key; each is read when a tensor first needs it."""

  def __init__(self, archive: zipfile.ZipFile, members: dict, folder: str):
    self._archive, self._members, self._folder = archive, members, folder
    self._read: dict[str, np.ndarray] = {}

  def find(self, reference: Any) -> np.ndarray:
    """The numbers that a persistent id ('storage', type, key, device, count) stands for."""
    match reference:
      case ('storage', np.dtype() as dtype, str(key), str(), int(count)):
        pass
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
    if key not in self._read:
      self._read[key] = np.frombuffer(self._archive.read(info), dtype)
    if self._read[key].dtype != dtype:
      raise Malformed(f'storage {key!r} is both {self._read[key].dtype} and {dtype}')
    return self._read[key]


def _tensor(arguments: tuple) -> np.ndarray:
  """The view of a storage that `_rebuild_tensor_v2(storage, offset, size, stride, ...)` makes."""
  if len(arguments) not in (6, 7):
    raise Malformed(f'a tensor has {len(arguments)} arguments, expected 6')
  storage, offset, size, stride = arguments[:4]
  if not isinstance(storage, np.ndarray):
    raise Malformed('a tensor has no storage')
  if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)):
    raise Malformed('the size and the strides of a tensor do not belong together')
  numbers = (offset, *size, *stride)
  if len(size) > MAX_DIMS or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
    raise Malformed(f'a tensor has the impossible size {_short(size)} or stride {_short(stride)}')
  count = math.prod(size)
  last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  if count and (last >= storage.size or count > storage.size):
    raise Malformed(
      f'a tensor of size {_short(size)}, strides {_short(stride)} and offset {offset} does not fit '
      f'into its storage of {storage.size:,} numbers'
    )
  if not count:
    return np.zeros(size, storage.dtype)
  strides = tuple(step * storage.itemsize for step in stride)
  return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def _short(value: Any) -> str:
  """For messages; bounded also where a value holds itself, or the same one many times."""
  text = value if isinstance(value, str) else reprlib.repr(value)
  return text if len(text) <= 80 else text[:77] + '...'


class _Global(NamedTuple):
  """A name that the pickle mentions; a tuple of its own, so that it is no number or string."""

  meaning: Any


class _Machine:
  """Interprets a pickle. Only what is in `_OPERATIONS` can happen."""

  def __init__(self, storages: _Storages):
    self._storages = storages
    self._stack: list = []
    self._below: list[list] = []  # the stacks under open marks
    self._memo: dict[int, Any] = {}
    self._flags: list[dict] = []

  def run(self, pickled: bytes) -> Any:
    try:
      for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == 'STOP':
          (result,) = self._stack
          return result
        operation = self._OPERATIONS.get(opcode.name)
        if operation is None:
          raise Malformed(
            f'its pickle has the instruction {opcode.name}, which tensors do not need'
          )
        operation(self, argument)
    except Malformed:
      raise
    except (ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
      raise Malformed(f'its pickle is damaged ({_short(str(error))})') from error
    raise Malformed('its pickle has no end')

  def _push(self, value: Any) -> None:
    self._stack.append(value)

  def _mark(self, _) -> None:
    self._below.append(self._stack)
    self._stack = []

  def _since_mark(self) -> list:
    items, self._stack = self._stack, self._below.pop()
    return items

  def _tuple(self, count: int) -> None:
    if len(self._stack) < count:
      raise Malformed('its pickle takes more than there is')
    items = self._stack[len(self._stack) - count :]
    del self._stack[len(self._stack) - count :]
    self._stack.append(tuple(items))

  def _put(self, index: int) -> None:
    self._memo[index] = self._stack[-1]

  def _append(self, items: list) -> None:
    if type(self._stack[-1]) is not list:
      raise Malformed('its pickle appends to what is not a list')
    self._stack[-1].extend(items)

  def _set_items(self, items: list) -> None:
    target = self._stack[-1]
    if type(target) is not dict or len(items) % 2:
      raise Malformed('its pickle sets items of what is not a dict')
    for key, value in zip(items[::2], items[1::2], strict=True):
      if type(key) not in (str, int):
        raise Malformed(f'its pickle has the key {_short(key)}, expected a string')
      target[key] = value

  def _global(self, name: str) -> None:
    if name not in GLOBALS:
      raise Malformed(
        f'its pickle asks for {_short(name.replace(" ", "."))}, which a dict of tensors never needs'
      )
    self._push(_Global(GLOBALS[name]))

  def _persistent(self, _) -> None:
    reference = self._stack.pop()
    if isinstance(reference, tuple):
      reference = tuple(v.meaning if isinstance(v, _Global) else v for v in reference)
    self._push(self._storages.find(reference))

  def _reduce(self, _) -> None:
    arguments, function = self._stack.pop(), self._stack.pop()
    match function, arguments:
      case _Global(meaning=Call.DICT), ():
        self._push({})
      case _Global(meaning=Call.TENSOR), tuple():
        self._push(_tensor(arguments))
      case _Global(meaning=Call.SIZE), (tuple() as size,):
        self._push(size)
      case _:
        raise Malformed('its pickle calls what is not a function for tensors')

  def _build(self, _) -> None:
    """The attributes of an object.

    A state dict carries the version numbers of its modules, which are dropped; those of flags are
    the flags.
    """
    attributes = self._stack.pop()
    target = self._stack[-1]
    if type(target) is not dict:
      raise Malformed('its pickle sets attributes of what is not a dict')
    if any(target is flags for flags in self._flags):
      if type(attributes) is not dict:
        raise Malformed('its flags are not a dict')
      target.update(attributes)

  def _new(self, _) -> None:
    """An empty object of a class, of which flags are the only one."""
    arguments, kind = self._stack.pop(), self._stack.pop()
    if kind != _Global(Call.FLAGS) or arguments != ():
      raise Malformed('its pickle makes an object that tensors do not need')
    self._flags.append({})
    self._push(self._flags[-1])

  _OPERATIONS: Mapping[str, Callable[['_Machine', Any], None]] = {
    'PROTO': lambda self, _: None,
    'MARK': _mark,
    'NONE': lambda self, _: self._push(None),
    'NEWTRUE': lambda self, _: self._push(True),
    'NEWFALSE': lambda self, _: self._push(False),
    **dict.fromkeys(('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINUNICODE'), _push),
    'EMPTY_DICT': lambda self, _: self._push({}),
    'EMPTY_LIST': lambda self, _: self._push([]),
    'EMPTY_TUPLE': lambda self, _: self._push(()),
    'TUPLE': lambda self, _: self._push(tuple(self._since_mark())),
    'TUPLE1': lambda self, _: self._tuple(1),
    'TUPLE2': lambda self, _: self._tuple(2),
    'TUPLE3': lambda self, _: self._tuple(3),
    'APPEND': lambda self, _: self._append([self._stack.pop()]),
    'APPENDS': lambda self, _: self._append(self._since_mark()),
    'SETITEM': lambda self, _: self._set_items([self._stack.pop(-2), self._stack.pop()]),
    'SETITEMS': lambda self, _: self._set_items(self._since_mark()),
    'BINPUT': _put,
    'LONG_BINPUT': _put,
    'BINGET': lambda self, index: self._push(self._memo[index]),
    'LONG_BINGET': lambda self, index: self._push(self._memo[index]),
    'GLOBAL': _global,
    'BINPERSID': _persistent,
    'REDUCE': _reduce,
    'NEWOBJ': _new,
    'BUILD': _build,
  }
