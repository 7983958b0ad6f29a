"""Settings: fields of a dataclass with defaults, ranges and choices, checked in one place.

A section of a config is declared once, as a dataclass whose fields are made by `setting`. The
config takes its defaults from there (`defaults`), and values are checked against it (`checked`).
"""

from collections.abc import Mapping
import dataclasses
import math
import numbers
import operator
import types
import typing
from typing import Any

from ml_collections import config_dict

from hvae_tpu.errors import UserError


def setting(
  default: Any,
  *,
  least: float | None = None,
  most: float | None = None,
  above: float | None = None,
  below: float | None = None,
  choices: tuple = (),
  changeable: bool = False,
  infinite: bool = False,
) -> Any:
  """Declares a field of a section.

  Args:
    default: value of the field where a config does not set it.
    least, most, above, below: range of a number, or of every number in a tuple. `least` and `most`
      belong to the range, `above` and `below` do not.
    choices: allowed values, of every item if the field is a tuple; empty: all of the type.
    changeable: whether a run may be resumed with another value. Such fields (loss weights, forms of
      execution) change neither the parameters nor their meaning.
    infinite: whether infinity is allowed. NaN never is.
  """
  limits = {'least': least, 'most': most, 'above': above, 'below': below}
  metadata = {
    'limits': {name: value for name, value in limits.items() if value is not None},
    'choices': choices,
    'changeable': changeable,
    'infinite': infinite,
  }
  return dataclasses.field(default=default, metadata=metadata)


def defaults(section: type) -> dict[str, Any]:
  """Returns the fields of a dataclass and their defaults, as a section of a `ConfigDict`.

  A default None becomes a placeholder, which a command line can set.
  """
  types_of = typing.get_type_hints(section)
  values = {}
  for field in dataclasses.fields(section):
    value = field.default
    if value is None:
      value = config_dict.placeholder(_types(types_of[field.name])[0])
    elif dataclasses.is_dataclass(value):
      value = defaults(type(value)) | dataclasses.asdict(value)
    values[field.name] = value
  return values


def changeable(section: type) -> set[str]:
  """Returns the names of the fields that may differ when a run is resumed."""
  return {f.name for f in dataclasses.fields(section) if f.metadata.get('changeable')}


def problems(section: Any, where: str) -> list[str]:
  """Returns a sentence for every wrong value of a dataclass.

  Args:
    section: an instance.
    where: the path of the section in a config, such as 'config.model'.
  """
  types_of = typing.get_type_hints(type(section))
  sentences = []
  for field in dataclasses.fields(section):
    value = getattr(section, field.name)
    if problem := _problem(field, types_of[field.name], value):
      sentences.append(f'{where}.{field.name}={value!r} {problem}')
  return sentences


def check(section: Any, where: str) -> None:
  """Raises UserError, naming every wrong value of an instance."""
  if errors := problems(section, where):
    raise UserError('; '.join(errors))


def checked(section: type, values: Mapping[str, Any], where: str) -> Any:
  """Returns an instance of a dataclass with the values of a config.

  Args:
    section: the dataclass.
    values: by field; other fields have their defaults.
    where: the path of the section in a config, which errors name.

  Raises:
    UserError: an unknown field, or a wrong value.
  """
  known = {field.name for field in dataclasses.fields(section)}
  if unknown := sorted(set(values) - known):
    raise UserError(f'{where} has {", ".join(unknown)}, but may have {", ".join(sorted(known))}')
  types_of = typing.get_type_hints(section)
  fields = {}
  for name, value in values.items():
    nested = dataclasses.is_dataclass(types_of[name])
    path = f'{where}.{name}'
    fields[name] = checked(types_of[name], value, path) if nested else _tuples(value)
  instance = section(**fields)
  check(instance, where)
  return instance


def _problem(field: dataclasses.Field, kind: Any, value: Any) -> str:
  """Returns the end of a sentence about a wrong value; empty if it is allowed."""
  kinds, items = _types(kind), value if isinstance(value, tuple) else (value,)
  if value is None and (field.default is None or type(None) in typing.get_args(kind)):
    return ''
  if kinds and not (
    _allows(kind, isinstance(value, tuple)) and all(_is_a(item, kinds) for item in _scalars(items))
  ):
    return f'must be {_named(kind)}'
  if choices := field.metadata.get('choices'):
    is_tuple = typing.get_origin(kind) is tuple
    if not all(item in choices for item in (items if is_tuple else (value,))):
      words = 'have no items but' if is_tuple else 'be one of'
      return f'must {words} {", ".join(map(repr, choices))}'
  numeric = [v for v in _scalars(items) if isinstance(v, numbers.Real) and not isinstance(v, bool)]
  if any(math.isnan(number) for number in numeric):
    return 'must be a number'
  if not field.metadata.get('infinite') and any(math.isinf(number) for number in numeric):
    return 'must be finite'
  limits = field.metadata.get('limits', {})
  return '' if all(_lies_in(number, limits) for number in numeric) else _range(limits)


def _allows(kind: Any, is_tuple: bool) -> bool:
  """Returns whether an annotation allows tuples (`is_tuple`), or values other than tuples."""
  is_union = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
  alternatives = typing.get_args(kind) if is_union else (kind,)
  return any((typing.get_origin(k) is tuple) == is_tuple for k in alternatives)


def _scalars(items: tuple) -> list[Any]:
  """Returns the leaves of nested tuples."""
  return [leaf for i in items for leaf in (_scalars(i) if isinstance(i, tuple) else [i])]


def _types(kind: Any) -> tuple[type, ...]:
  """Returns the scalar types that an annotation allows; empty: all."""
  if kind is Any:
    return ()
  if isinstance(kind, types.UnionType) or typing.get_origin(kind) in (typing.Union, tuple):
    inner = [_types(arg) for arg in typing.get_args(kind) if arg not in (type(None), ...)]
    return tuple(t for group in inner for t in group) if all(inner) else ()
  return (kind,) if isinstance(kind, type) and kind is not tuple else ()


def _is_a(value: Any, kinds: tuple[type, ...]) -> bool:
  if isinstance(value, bool):
    return bool in kinds
  if isinstance(value, numbers.Integral):
    return int in kinds or float in kinds
  return isinstance(value, numbers.Real if float in kinds else kinds) or isinstance(value, kinds)


def _named(kind: Any) -> str:
  names = {int: 'a whole number', float: 'a number', bool: 'True or False', str: 'a string'}
  text = ' or '.join(names.get(t, t.__name__) for t in dict.fromkeys(_types(kind)))
  return f'a tuple, each item {text}' if typing.get_origin(kind) is tuple else text


def _lies_in(number: float, limits: Mapping[str, float]) -> bool:
  tests = {'least': operator.ge, 'most': operator.le, 'above': operator.gt, 'below': operator.lt}
  return all(tests[name](number, limit) for name, limit in limits.items())


def _range(limits: Mapping[str, float]) -> str:
  """Describes a range in words."""
  written = {name: f'{limit:,}' for name, limit in limits.items()}
  if set(limits) == {'least', 'most'}:
    return f'must lie between {written["least"]} and {written["most"]}'
  if set(limits) == {'above', 'below'}:
    return f'must lie between {written["above"]} and {written["below"]}, both excluded'
  words = {'least': 'at least', 'most': 'at most', 'above': 'above', 'below': 'below'}
  parts = [f'{words[name]} {limit}' for name, limit in written.items()]
  if limits == {'least': 0}:
    return 'must not be negative'
  if limits == {'above': 0}:
    return 'must be positive'
  return f'must be {" and ".join(parts)}'


def _tuples(value: Any) -> Any:
  """Turns lists, as JSON has them, into tuples."""
  return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value
