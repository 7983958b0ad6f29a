"""Flattens the tree of a file to named arrays; every leaf is used, set aside or refused."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.importers.formats import Contents
from hvae_tpu.storage.tensor_files import Container

MAX_DEPTH = 32
MAX_LEAVES = 200_000


def unwrap(tree: Any, wrappers: tuple[str, ...]) -> tuple[Any, dict[str, int]]:
  """Goes into the mapping under a wrapper's name, as long as there is one.

  Args:
    tree: content of a file.
    wrappers: names that no parameter has, e.g. 'model'.

  Returns:
    The inner tree, and its neighbours: path -> number of leaves.

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
  """Returns {'step': number of updates} if the keys lead to one integer, else {}."""
  value = tree
  for key in keys:
    value = value.get(key) if isinstance(value, dict) else None
  is_count = isinstance(value, int | np.integer | np.ndarray) and np.ndim(value) == 0
  return {'step': int(value)} if is_count and value >= 0 else {}


def flatten(tree: Any, join: str) -> dict[str, np.ndarray]:
  """Returns arrays by the joined names of their path; names that are joined already stay.

  Raises:
    UserError: a leaf is not an array, a name occurs twice, or the tree is too deep or too large.
  """
  if not _is_tree(tree):
    raise UserError(f'the file holds a single {type(tree).__name__}, expected arrays by name')
  arrays = {}
  for name, leaf in _leaves(tree, join):
    if not isinstance(leaf, np.ndarray | np.generic):
      raise UserError(
        f'{name} is of type {type(leaf).__name__}, expected an array; save the parameters alone'
      )
    if name in arrays:
      raise UserError(f'{name} occurs twice in the file; save the parameters with one name each')
    arrays[name] = np.asarray(leaf)
  return arrays


def without_module(tensors: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the arrays by names without the prefix that data-parallel training leaves.

  Raises:
    UserError: a name occurs with and without the prefix.
  """
  renamed = {key.removeprefix('module.'): tensor for key, tensor in tensors.items()}
  if len(renamed) != len(tensors):
    raise UserError(
      f'{len(tensors) - len(renamed)} names of the state dict occur with and without the prefix '
      f"'module.'; save one state dict"
    )
  return renamed


def flax_optimizer(container: Container) -> Contents:
  """Reads the parameters in a pair (optimizer, anything), as Flax's old optimizers were saved.

  The optimizer has the parameters as `target`; Flax calls the members of a pair '0' and '1'.
  """
  tree, aside = unwrap(container.tree, ('0', 'target', 'optimizer', 'params'))
  step = step_of(container.tree, '0', 'state', 'step')
  return Contents({'params': flatten(tree, '/')}, aside, step)


def _is_tree(value: Any) -> bool:
  return isinstance(value, dict | list | tuple)


def _leaves(tree: Any, join: str) -> Iterator[tuple[str, Any]]:
  """Yields (path, leaf) in order; without recursion, as files may nest deeper than calls can."""
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
