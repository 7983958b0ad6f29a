"""Counts of the loops of a compiled program, read from its text."""

import functools
import re
from typing import Any, NamedTuple

import jax

from hvae_tpu.devices import sharding
from hvae_tpu.planning import hlo

# Instructions that do nothing when the program runs.
FREE = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all'}
PRODUCTS = {'dot', 'convolution'}  # on a TPU both are called convolution


class Loop(NamedTuple):
  """A loop with matrix products in its body.

  Attributes:
    trips: number of iterations.
    products: matrix products in an iteration.
    chain: longest chain of matrix products that depend on each other, in an iteration.
    operations: instructions that run in an iteration; a fusion counts as one.
    cycles: the compiler's estimate of an iteration; 0 if there is none.
  """

  trips: int
  products: int
  chain: int
  operations: int
  cycles: int


def loops(text: str) -> list[Loop]:
  """Returns the loops of an optimised HLO module (`compiled.as_text()`), in textual order."""
  program = hlo.Program(text, 1)
  module = program.computations

  def weight(instruction: hlo.Instruction) -> int:
    return _own(instruction) + sum(map(products, hlo.callees(instruction)))

  @functools.cache
  def products(computation: str) -> int:
    return sum(map(weight, module[computation]))

  def chain(computation: str) -> int:
    longest = {}
    for i in module[computation]:  # operands come first
      longest[i.name] = weight(i) + max((longest.get(o, 0) for o in _operands(i)), default=0)
    return max(longest.values())

  result = []
  for loop in (i for instructions in module.values() for i in instructions):
    if loop.opcode != 'while' or not weight(loop):
      continue
    (body,) = hlo.callees(loop)
    inner = [i for i in module[body] if i.opcode not in FREE]
    cycles = (hlo.CYCLES.search(i.text) for i in inner)
    result.append(
      Loop(
        trips=program.trips(loop),
        products=products(body),
        chain=chain(body),
        operations=len(inner),
        cycles=sum(int(match[1]) for match in cycles if match),
      )
    )
  return result


def _own(instruction: hlo.Instruction) -> int:
  """Returns 1 if the instruction itself is a matrix product, else 0."""
  named = 'matmul' in instruction.text and instruction.opcode == 'custom-call'
  return int(instruction.opcode in PRODUCTS or named)


def _operands(instruction: hlo.Instruction) -> list[str]:
  """Returns the names in the parentheses behind the opcode."""
  behind = instruction.text.split(f' {instruction.opcode}(', 1)[1]
  return re.findall(r'%([\w.\-]+)', behind.split(')')[0])


def compiled_for(device: Any, function: Any, *arguments: Any) -> str:
  """Compiles a function for one device, which may be a described one, and returns the text."""
  placement = sharding.replicated(sharding.make_mesh(1, 1, [device]))
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placement), arguments
  )
  return jax.jit(function).lower(*abstract).compile().as_text()
