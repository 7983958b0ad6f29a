"""Pickles of plain values and arrays, interpreted without Python's unpickler.

Only the instructions that build such values are known. A pickle can use the names that its reader
knows and nothing else, so it cannot run a program.

Source of the format: the opcodes of Python's `pickletools`; the form in which NumPy pickles arrays.
"""

from collections.abc import Callable, Mapping
import dataclasses
import pickletools
import re
import reprlib
from typing import Any

import numpy as np

# Errors of a damaged pickle.
_DAMAGE = (ValueError, IndexError, KeyError, AttributeError, TypeError, ArithmeticError)


class Malformed(ValueError):
  """A damaged or hostile file; the text says why."""


@dataclasses.dataclass(frozen=True)
class Name:
  """A function or class that a pickle mentions, as 'module name'; never the object itself."""

  text: str


def short(value: Any) -> str:
  """Cuts a value's text for a message; it is bounded also where a value holds itself."""
  text = value if isinstance(value, str) else reprlib.repr(value)
  return text if len(text) <= 80 else text[:77] + '...'


class Reader:
  """Interprets one pickle; only the instructions in `_INSTRUCTIONS` can happen.

  A subclass says which names a pickle may mention, and what they mean. The methods below refuse
  everything that a subclass does not know.

  Attributes:
    contents: the values that such pickles are made of, for messages.
    names: the names that a pickle may mention, as 'module name'.
  """

  contents = 'plain values'
  names: frozenset[str] = frozenset()

  def __init__(self):
    self._stack: list = []
    self._below: list[list] = []  # the stacks under open marks
    self._memo: dict[int, Any] = {}

  def call(self, name: str, arguments: tuple) -> Any:
    """Returns the value of a call of a known name."""
    raise Malformed(f'its pickle calls what is not a function for {self.contents}')

  def new(self, name: str, arguments: tuple) -> Any:
    """Returns a new object of a known class."""
    raise Malformed(f'its pickle makes an object that {self.contents} do not need')

  def set_state(self, target: Any, state: Any) -> None:
    """Sets the attributes of an object that the pickle made."""
    raise Malformed(f'its pickle sets attributes, which {self.contents} do not need')

  def resolve(self, reference: Any) -> Any:
    """Returns the value outside the pickle that a reference stands for."""
    raise Malformed(f'its pickle refers to other files, which {self.contents} do not need')

  def read(self, pickled: bytes) -> Any:
    """Returns the value in a pickle.

    Raises:
      Malformed: the pickle is damaged, or asks for anything else than plain values.
    """
    try:
      for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == 'STOP':
          (result,) = self._stack
          return result
        instruction = self._INSTRUCTIONS.get(opcode.name)
        if instruction is None:
          raise Malformed(
            f'its pickle has the instruction {opcode.name}, which {self.contents} do not need'
          )
        instruction(self, argument)
    except Malformed:
      raise
    except _DAMAGE as error:
      raise Malformed(f'its pickle is damaged ({short(str(error))})') from error
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

  def _memoize(self, index: int | None) -> None:
    self._memo[len(self._memo) if index is None else index] = self._stack[-1]

  def _top(self, kind: type) -> Any:
    if type(self._stack[-1]) is not kind:
      raise Malformed(f'its pickle fills a {type(self._stack[-1]).__name__} like a {kind.__name__}')
    return self._stack[-1]

  def _append(self, items: list) -> None:
    self._top(list).extend(items)

  def _set_items(self, items: list) -> None:
    target = self._top(dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
      if type(key) not in (str, bytes, int):
        raise Malformed(f'its pickle has the key {short(key)}, expected a string')
      target[key] = value

  def _mention(self, name: str) -> None:
    if name not in self.names:
      raise Malformed(
        f'its pickle asks for {short(name.replace(" ", "."))}, which {self.contents} never need'
      )
    self._stack.append(Name(name))

  def _mention_from_stack(self, _) -> None:
    name, module = self._stack.pop(), self._stack.pop()
    self._mention(f'{module} {name}')

  def _apply(self, function: Callable[[str, tuple], Any]) -> None:
    arguments, name = self._stack.pop(), self._stack.pop()
    is_call = isinstance(name, Name) and isinstance(arguments, tuple)
    # A text that is no name stands for values that cannot be called.
    self._stack.append(function(name.text if is_call else '', arguments))

  def _build(self, _) -> None:
    state = self._stack.pop()
    self.set_state(self._stack[-1], state)

  _INSTRUCTIONS: Mapping[str, Callable[['Reader', Any], None]] = {
    **dict.fromkeys(('PROTO', 'FRAME'), lambda self, _: None),
    'MARK': _mark,
    'NONE': lambda self, _: self._push(None),
    'NEWTRUE': lambda self, _: self._push(True),
    'NEWFALSE': lambda self, _: self._push(False),
    **dict.fromkeys(('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT'), _push),
    **dict.fromkeys(('BINUNICODE', 'SHORT_BINUNICODE', 'BINBYTES', 'SHORT_BINBYTES'), _push),
    # Python 2 called bytes a string.
    **dict.fromkeys(
      ('BINSTRING', 'SHORT_BINSTRING'), lambda self, text: self._push(text.encode('latin1'))
    ),
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
    **dict.fromkeys(('BINGET', 'LONG_BINGET'), lambda self, index: self._push(self._memo[index])),
    'GLOBAL': _mention,
    'STACK_GLOBAL': _mention_from_stack,
    'BINPERSID': lambda self, _: self._push(self.resolve(self._stack.pop())),
    'REDUCE': lambda self, _: self._apply(self.call),
    'NEWOBJ': lambda self, _: self._apply(self.new),
    'BUILD': _build,
  }


@dataclasses.dataclass
class _DType:
  """A dtype; its byte order follows in a second instruction."""

  text: str


@dataclasses.dataclass
class _Array:
  """An array; its shape and numbers follow in a second instruction."""

  values: np.ndarray | None = None


_RECONSTRUCT = ('numpy.core.multiarray _reconstruct', 'numpy._core.multiarray _reconstruct')


class _ArrayReader(Reader):
  """Reads NumPy arrays beside plain values."""

  contents = 'arrays'
  names = frozenset(('numpy ndarray', 'numpy dtype', '_codecs encode', *_RECONSTRUCT))

  def call(self, name: str, arguments: tuple) -> Any:
    match name, arguments:
      case '_codecs encode', (str() as text, 'latin1'):
        return text.encode('latin1')  # how Python 3 pickles bytes in protocol 2
      case 'numpy dtype', (bytes() | str() as text, *_):
        return _DType(_ascii(text))
      case str(), (Name('numpy ndarray'), *_) if name in _RECONSTRUCT:
        return _Array()
    raise Malformed('its pickle makes a call for which arrays have no use')

  def set_state(self, target: Any, state: Any) -> None:
    match target, state:
      case _DType(), (_, bytes() | str() as order, *_):
        target.text = _ascii(order) + target.text
      case _Array(), (_, tuple() as shape, _DType() as dtype, bool() as by_columns, bytes() as raw):
        if not re.fullmatch(r'[<>|=]?[biuf][1248]', dtype.text):
          raise Malformed(f'its pickle holds an array of {dtype.text!r}, not of numbers')
        values = np.frombuffer(raw, dtype.text)
        target.values = values.reshape(shape, order='F' if by_columns else 'C')
      case _:
        raise Malformed('its pickle fills an array with other things than numbers')


def _ascii(value: bytes | str) -> str:
  return value.decode('ascii') if isinstance(value, bytes) else value


def read_arrays(pickled: bytes) -> dict[str | bytes | int, Any]:
  """Returns a dict of NumPy arrays, numbers, texts and lists of them.

  Raises:
    Malformed: the pickle is damaged, or holds anything else.
  """
  values = _ArrayReader().read(pickled)
  if not isinstance(values, dict):
    raise Malformed(f'its pickle must hold a dict, not {type(values).__name__}')
  return {
    key: value.values if isinstance(value, _Array) else value for key, value in values.items()
  }
