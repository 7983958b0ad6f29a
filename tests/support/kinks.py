"""Gradients at the kinks of piecewise linear activations.

Where the input of a ReLU lies within rounding of zero, two correct programs may take its slope from
different sides. A gradient that differs for this reason agrees once the input has crossed zero.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

STEP = 1e-6  # rounding of inputs of order one
Moves = tuple[tuple[str, float], ...]  # (name of a bias, number to add)


def bias_names(params: Any) -> list[str]:
  """Returns the names of the parameters whose own name begins with 'bias'."""
  names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  return [name for name in names if name.split('/')[-1].startswith('bias')]


def move(params: Any, moves: Moves) -> Any:
  """Returns `params` with something added to some of their biases."""
  steps = dict(moves)
  return jax.tree_util.tree_map_with_path(lambda p, v: v + steps.get(_name(p), 0), params)


def _name(path: Iterable[Any]) -> str:
  return '/'.join(str(part.key) for part in path)


def real_differences(
  differences: Callable[[Any], Mapping[str, str]],
  gradients_at: Callable[[Moves], Any],
  biases: Iterable[str],
) -> dict[str, str]:
  """Returns the differences between gradients that no crossed kink explains.

  Every bias is moved a little up and down, one after the other. A move that only makes tensors
  agree has crossed the kink that they differed by, and stays.

  Args:
    differences: gradients -> message for each tensor that differs from the expected one.
    gradients_at: moves of biases -> gradients.
    biases: names of the biases to move.

  Returns:
    tensor -> message, for the tensors that still differ after all moves.
  """
  moves: Moves = ()
  messages = dict(differences(gradients_at(moves)))
  for trial in [(name, step) for name in biases for step in (STEP, -STEP)] if messages else ():
    if messages and trial[0] not in dict(moves):
      remaining = dict(differences(gradients_at((*moves, trial))))
      if set(remaining) < set(messages):
        moves, messages = (*moves, trial), remaining
  return messages
