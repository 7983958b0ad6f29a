"""Floating-point operations and operand bytes of a program, counted from its jaxpr.

The compiler's own count takes the body of a loop once. Here a loop counts as often as it runs, and
rematerialised operations count again.
"""

from collections.abc import Iterator
import math
from typing import Any, NamedTuple

from jax.extend import core

PRODUCTS = ('dot_general', 'conv_general_dilated')


class Work(NamedTuple):
  """Work of convolutions and matrix products; other operations fuse into them and cost little.

  Attributes:
    flops: floating-point operations; a multiplication with its addition counts as two.
    bytes: operands read and results written, each once per operation.
  """

  flops: float
  bytes: float


def count(jaxpr: Any) -> Work:
  """Counts the work of a (closed) jaxpr; a loop of unknown length counts as one iteration."""
  flops = moved = 0.0
  for equation in getattr(jaxpr, 'jaxpr', jaxpr).eqns:
    name, params = equation.primitive.name, equation.params
    if name in PRODUCTS:
      flops += _flops(equation)
      moved += sum(_bytes(v.aval) for v in (*equation.invars, *equation.outvars))
    elif name == 'cond':
      # One branch runs; the most expensive one is an upper bound.
      branches = [count(branch) for branch in params['branches']]
      flops += max(work.flops for work in branches)
      moved += max(work.bytes for work in branches)
    else:
      times = params['length'] if name == 'scan' else 1
      for inner in _inner(params):
        work = count(inner)
        flops += times * work.flops
        moved += times * work.bytes
  return Work(flops, moved)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
  """Yields the jaxprs among the parameters of an operation: loop bodies, calls, remat blocks."""
  for value in params.values():
    if isinstance(value, core.ClosedJaxpr | core.Jaxpr):
      yield value


def _flops(equation: Any) -> float:
  """Returns the FLOPs of a matrix product or convolution."""
  left, right = (v.aval.shape for v in equation.invars[:2])
  out = math.prod(equation.outvars[0].aval.shape)
  if equation.primitive.name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    return 2.0 * out * math.prod(left[axis] for axis in contracted)
  # Every output element sums over the kernel window and the input channels.
  numbers = equation.params['dimension_numbers']
  window = math.prod(right[axis] for axis in numbers.rhs_spec[2:])
  inputs = right[numbers.rhs_spec[1]]
  # A dilated operand is zero between its elements; products with these zeros are not counted.
  holes = math.prod(equation.params['lhs_dilation'])
  return 2.0 * out * window * inputs / holes


def _bytes(aval: Any) -> float:
  """Returns the size of an abstract array, bytes."""
  return math.prod(aval.shape) * aval.dtype.itemsize
