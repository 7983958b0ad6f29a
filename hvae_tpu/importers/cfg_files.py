"""Cfg files with Python expressions as values, read without running anything.

Values are computed from their syntax trees: numbers, strings, tuples and lists, with + - * / **,
max and min. Anything else is refused.
"""

import ast
import configparser
import operator
from pathlib import Path
from typing import Any

from hvae_tpu.errors import UserError

MAX_BYTES = 2**20
MAX_LENGTH = 10_000  # of a list; the published ones have 63 entries
MAX_EXPONENT = 64
OPERATORS = {
  ast.Add: operator.add,
  ast.Sub: operator.sub,
  ast.Mult: operator.mul,
  ast.Div: operator.truediv,
  ast.Pow: operator.pow,
}
FUNCTIONS = {'max': max, 'min': min}
Sections = dict[str, dict[str, Any]]


def read(path: str | Path) -> Sections:
  """Returns the values of a cfg, by section and name.

  Raises:
    UserError: the file is no cfg, or has a value of another kind.
  """
  path = Path(path)
  try:
    if path.stat().st_size > MAX_BYTES:
      raise UserError(f'--hparams={path} has more than {MAX_BYTES:,} bytes; it is no hparams file')
    parser = configparser.RawConfigParser()
    parser.optionxform = str
    parser.read_string(path.read_text())
  except (OSError, ValueError, configparser.Error) as error:
    line = ' '.join(str(error).split())
    raise UserError(f'--hparams={path} cannot be read as a cfg ({line})') from error
  return {
    section: {key: _value(text, path, f'{section}.{key}') for key, text in parser[section].items()}
    for section in parser.sections()
  }


def _value(text: str, path: Path, key: str) -> Any:
  try:
    return _evaluate(ast.parse(text.strip(), mode='eval').body)
  except (SyntaxError, ValueError, TypeError, ArithmeticError, MemoryError, RecursionError) as e:
    reason = ' '.join(str(e).split()) or type(e).__name__
    raise UserError(
      f'--hparams={path}: {key} is not a value made of numbers, strings and lists ({reason}); '
      f'nothing in the file was run; write the value itself there'
    ) from e


def _evaluate(node: ast.expr) -> Any:
  """Returns the value of a syntax tree. Raises ValueError for other expressions."""
  if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | None):
    return node.value
  if isinstance(node, ast.Tuple | ast.List):
    values = [_evaluate(item) for item in node.elts]
    return tuple(values) if isinstance(node, ast.Tuple) else values
  if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
    value = _number(_evaluate(node.operand))
    return -value if isinstance(node.op, ast.USub) else value
  if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
    return _apply(node.op, _evaluate(node.left), _evaluate(node.right))
  if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
    if node.func.id in FUNCTIONS:
      return FUNCTIONS[node.func.id](*(_number(_evaluate(item)) for item in node.args))
  raise ValueError(f'it has {ast.unparse(node)[:60]!r}')


def _number(value: Any) -> int | float:
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise ValueError(f'{value!r} is not a number')
  return value


def _apply(op: ast.operator, left: Any, right: Any) -> Any:
  """Applies an operator to numbers, or + and * to lists. Sizes are bounded first."""
  if isinstance(left, list) and isinstance(op, ast.Add) and isinstance(right, list):
    size = len(left) + len(right)
  elif isinstance(left, list) and isinstance(op, ast.Mult) and isinstance(right, int):
    size = len(left) * right
  else:
    left, right, size = _number(left), _number(right), 0
    if isinstance(op, ast.Pow) and abs(right) > MAX_EXPONENT or abs(left) > 1e15:
      raise ValueError(f'{left} and {right} are too large')
  if size > MAX_LENGTH:
    raise ValueError(f'a list of {size:,} entries is too long')
  return OPERATORS[type(op)](left, right)
