"""Pickled dicts of NumPy arrays, numbers and text, interpreted without Python's unpickler.

The batches of CIFAR-10 and the index lists of NVAE come this way. Only the few instructions that
build such values are known, so nothing that a pickle asks for can run a program.

Source of the format: the opcodes of Python's `pickletools`; how NumPy pickles an array.
"""

from collections.abc import Callable, Mapping
import dataclasses
import pickletools
import re
from typing import Any

import numpy as np

from data_prep.errors import DataPrepError

_RECONSTRUCT = ('numpy.core.multiarray _reconstruct', 'numpy._core.multiarray _reconstruct')
_GLOBALS = ('numpy ndarray', 'numpy dtype', '_codecs encode', *_RECONSTRUCT)


def read_batch(data: bytes, origin: str) -> dict[bytes, Any]:
  """The dict of a batch file; its keys are bytes, as Python 2 wrote them.

  Args:
    data: the bytes of the file.
    origin: what to call it in messages.

  Raises:
    DataPrepError: the pickle asks for anything but NumPy arrays and plain values, or is damaged.
  """
  try:
    found = _Machine().run(data)
  except DataPrepError as error:
    raise DataPrepError(f'{origin} {error}') from error
  except Exception as error:  # damage shows as many types
    raise DataPrepError(f'{origin} is a damaged pickle ({error}); fetch it anew') from error
  if not isinstance(found, dict):
    raise DataPrepError(f'{origin} must hold a dict, not {type(found).__name__}')
  return {
    key.encode() if isinstance(key, str) else key: value.values
    if isinstance(value, _Array)
    else value
    for key, value in found.items()
  }


@dataclasses.dataclass(frozen=True)
class _Global:
  """A name that the pickle mentions."""

  name: str


@dataclasses.dataclass
class _Kind:
  """A dtype; its byte order follows in a second instruction."""

  text: str


@dataclasses.dataclass
class _Array:
  """An array; what it holds follows in a second instruction."""

  values: np.ndarray | None = None


class _Machine:
  """Interprets a pickle. Only what is in `_OPERATIONS` can happen."""

  def __init__(self):
    self._stack: list = []
    self._below: list[list] = []  # the stacks under open marks
    self._memo: dict[int, Any] = {}

  def run(self, pickled: bytes) -> Any:
    for opcode, argument, _ in pickletools.genops(pickled):
      if opcode.name == 'STOP':
        (result,) = self._stack
        return result
      operation = self._OPERATIONS.get(opcode.name)
      if operation is None:
        raise DataPrepError(f'has the instruction {opcode.name}, for which arrays have no use')
      operation(self, argument)
    raise ValueError('it has no end')

  def _push(self, value: Any) -> None:
    self._stack.append(value)

  def _push_latin1(self, text: str) -> None:
    self._stack.append(text.encode('latin1'))  # what Python 2 called a string

  def _mark(self, _) -> None:
    self._below.append(self._stack)
    self._stack = []

  def _since_mark(self) -> list:
    items, self._stack = self._stack, self._below.pop()
    return items

  def _tuple(self, count: int) -> None:
    self._stack.append(tuple([self._stack.pop() for _ in range(count)][::-1]))

  def _memoize(self, index: int | None) -> None:
    self._memo[len(self._memo) if index is None else index] = self._stack[-1]

  def _get(self, index: int) -> None:
    self._stack.append(self._memo[index])

  def _append(self, items: list) -> None:
    self._expect(list).extend(items)

  def _set_items(self, items: list) -> None:
    self._expect(dict).update(zip(items[::2], items[1::2], strict=True))

  def _expect(self, kind: type) -> Any:
    if type(self._stack[-1]) is not kind:
      raise ValueError(f'it fills a {type(self._stack[-1]).__name__} like a {kind.__name__}')
    return self._stack[-1]

  def _global(self, name: str) -> None:
    if name not in _GLOBALS:
      raise DataPrepError(
        f'asks for {name.replace(" ", ".")}, which a batch of pictures has no use for; it was not '
        'read'
      )
    self._stack.append(_Global(name))

  def _stack_global(self, _) -> None:
    name, module = self._stack.pop(), self._stack.pop()
    self._global(f'{module} {name}')

  def _reduce(self, _) -> None:
    arguments, function = self._stack.pop(), self._stack.pop()
    match function, arguments:
      case _Global(name='_codecs encode'), (str() as text, 'latin1'):
        self._stack.append(text.encode('latin1'))  # how Python 3 pickles bytes in protocol 2
      case _Global(name='numpy dtype'), (bytes() | str() as text, *_):
        self._stack.append(_Kind(_text(text)))
      case _Global(name=name), (_Global(name='numpy ndarray'), *_) if name in _RECONSTRUCT:
        self._stack.append(_Array())
      case _:
        raise DataPrepError('makes a call for which arrays have no use; it was not read')

  def _build(self, _) -> None:
    state, target = self._stack.pop(), self._stack[-1]
    match target, state:
      case _Kind(), (_, bytes() | str() as order, *_):
        target.text = _text(order) + target.text
      case _Array(), (_, tuple() as shape, _Kind() as kind, bool() as by_columns, bytes() as raw):
        if not re.fullmatch(r'[<>|=]?[biuf][1248]', kind.text):
          raise ValueError(f'it holds an array of {kind.text!r}, not of numbers')
        values = np.frombuffer(raw, kind.text)
        target.values = values.reshape(shape, order='F' if by_columns else 'C')
      case _:
        raise ValueError('it fills an array with other things than numbers')

  _OPERATIONS: Mapping[str, Callable[['_Machine', Any], None]] = {
    **dict.fromkeys(('PROTO', 'FRAME'), lambda self, _: None),
    'MARK': _mark,
    'NONE': lambda self, _: self._push(None),
    'NEWTRUE': lambda self, _: self._push(True),
    'NEWFALSE': lambda self, _: self._push(False),
    **dict.fromkeys(('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT'), _push),
    **dict.fromkeys(('BINUNICODE', 'SHORT_BINUNICODE', 'BINBYTES', 'SHORT_BINBYTES'), _push),
    **dict.fromkeys(('BINSTRING', 'SHORT_BINSTRING'), _push_latin1),
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
    **dict.fromkeys(('BINPUT', 'LONG_BINPUT', 'MEMOIZE'), _memoize),
    **dict.fromkeys(('BINGET', 'LONG_BINGET'), _get),
    'GLOBAL': _global,
    'STACK_GLOBAL': _stack_global,
    'REDUCE': _reduce,
    'BUILD': _build,
  }


def _text(value: bytes | str) -> str:
  return value.decode('ascii') if isinstance(value, bytes) else value
