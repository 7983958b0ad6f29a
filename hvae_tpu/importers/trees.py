"""From what a file holds to arrays by name; all of it is used, set aside or refused."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from hvae_tpu.errors import UserError

MAX_DEPTH = 32
MAX_LEAVES = 200_000


class Contents(NamedTuple):
  """The weights of a file.

  Attributes:
    fields: 'params', and 'ema_params' or 'model_state' where the file has them too -> arrays by the
      names of the format's table.
    aside: what else the file holds (step, optimizer): path -> number of leaves.
    meta: what else is known: 'step', and of format hvae_tpu 'config' and 'card'.
  """

  fields: dict[str, dict[str, np.ndarray]]
  aside: dict[str, int]
  meta: dict[str, Any]


def unwrap(tree: Any, wrappers: tuple[str, ...]) -> tuple[Any, dict[str, int]]:
  """Goes into the mapping under a wrapper's name, as long as there is one.

  Args:
    tree: of a file.
    wrappers: names that no parameter has, e.g. 'model'.

  Returns:
    What is inside, and what stands beside it: path -> number of leaves.

  Raises:
    UserError: the tree is too deep, or has too many leaves.
  """
  aside, path = {}, ''
  for _ in range(MAX_DEPTH):
    key = next((k for k in wrappers if isinstance(tree, dict) and _is_tree(tree.get(k))), None)
    if key is None:
      break
    for other, value in tree.items():
      if other != key and (leaves := sum(1 for _ in _leaves(value, ''))):
        aside[f'{path}{other}'] = leaves
    tree, path = tree[key], f'{path}{key}/'
  return tree, aside


def step_of(tree: Any, *keys: str) -> dict[str, int]:
  """{'step': number of updates}, if the file says it, as one integer, where the keys lead."""
  value = tree
  for key in keys:
    value = value.get(key) if isinstance(value, dict) else None
  is_count = isinstance(value, int | np.integer | np.ndarray) and np.ndim(value) == 0
  return {'step': int(value)} if is_count and value >= 0 else {}


def flatten(tree: Any, join: str) -> dict[str, np.ndarray]:
  """Arrays by the names of their path, joined; names that are joined already stay as they are.

  Raises:
    UserError: a leaf is not an array, a name occurs twice, or the tree is too deep or too large.
  """
  if not _is_tree(tree):
    raise UserError(f'the file holds a single {type(tree).__name__}, expected arrays by name')
  found = {}
  for name, leaf in _leaves(tree, join):
    if not isinstance(leaf, np.ndarray | np.generic):
      raise UserError(
        f'{name} is of type {type(leaf).__name__}, expected an array; save the parameters alone'
      )
    if name in found:
      raise UserError(f'{name} occurs twice in the file; save the parameters with one name each')
    found[name] = np.asarray(leaf)
  return found


def _is_tree(value: Any) -> bool:
  return isinstance(value, dict | list | tuple)


def _leaves(tree: Any, join: str) -> Iterator[tuple[str, Any]]:
  """(path, leaf) in order; a stack of its own, as a file may nest deeper than Python calls."""
  pending, count = [('', 0, tree)], 0
  while pending:
    name, depth, value = pending.pop()
    count += 1
    if depth > MAX_DEPTH or count + len(pending) > MAX_LEAVES:
      raise UserError(
        f'the file nests deeper than {MAX_DEPTH} levels or holds more than {MAX_LEAVES:,} entries, '
        f'which no weights do; save the parameters alone'
      )
    if not _is_tree(value):
      yield name, value
      continue
    items = value.items() if isinstance(value, dict) else enumerate(value)
    inside = [(f'{name}{join}{key}' if name else str(key), depth + 1, v) for key, v in items]
    pending += reversed(inside)
