"""What the loops of a compiled program do, read from its text."""

import functools
import re
from typing import Any, NamedTuple

import jax

from hvae_tpu import sharding

# Instructions that do nothing when the program runs.
FREE = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all'}
PRODUCTS = {'dot', 'convolution'}  # on a TPU both are called convolution
_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$')
_OPCODE = re.compile(r'([a-z][a-z\-]*)\(')


class Loop(NamedTuple):
  """A loop with matrix products in its body.

  Attributes:
    trips: iterations.
    products: matrix products in an iteration.
    chain: how many of them have to wait for each other.
    operations: everything in an iteration that runs, with a fusion as one.
    cycles: of an iteration as the compiler estimates them; 0 where it does not.
  """

  trips: int
  products: int
  chain: int
  operations: int
  cycles: int


class Instruction(NamedTuple):
  name: str
  opcode: str
  operands: tuple[str, ...]
  calls: tuple[str, ...]
  text: str


def loops(text: str) -> list[Loop]:
  """The loops of an optimised HLO module (`compiled.as_text()`), in the order of the text."""
  module = _computations(text)

  @functools.cache
  def products(computation: str) -> int:
    return sum(_own(i) + sum(map(products, i.calls)) for i in module[computation])

  def chain(computation: str) -> int:
    longest = {}
    for i in module[computation]:  # operands come first
      weight = _own(i) + sum(map(products, i.calls))
      longest[i.name] = weight + max((longest.get(o, 0) for o in i.operands), default=0)
    return max(longest.values())

  found = []
  for instructions in module.values():
    for i in instructions:
      body = re.search(r'body=%?([\w.\-]+)', i.text)
      if i.opcode != 'while' or not products(body[1]):
        continue
      inner = [j for j in module[body[1]] if j.opcode not in FREE]
      trips = re.search(r'known_trip_count":\{"n":"(\d+)"', i.text)
      cycles = (re.search(r'estimated_cycles":"(\d+)"', j.text) for j in inner)
      found.append(
        Loop(
          trips=int(trips[1]) if trips else 0,
          products=products(body[1]),
          chain=chain(body[1]),
          operations=len(inner),
          cycles=sum(int(match[1]) for match in cycles if match),
        )
      )
  return found


def _own(instruction: Instruction) -> int:
  named = 'matmul' in instruction.text and instruction.opcode == 'custom-call'
  return int(instruction.opcode in PRODUCTS or named)


def _computations(text: str) -> dict[str, list[Instruction]]:
  """By name, the instructions of every computation."""
  module, current = {}, None
  for line in text.splitlines():
    if line.endswith('{') and '->' in line and ' = ' not in line.split('->')[0]:
      name = line.removeprefix('ENTRY ').split('(')[0].strip().lstrip('%')
      current = module.setdefault(name, [])
    elif current is not None and (match := _INSTRUCTION.match(line)):
      opcode = _OPCODE.search(match[2])
      rest = match[2][opcode.end() :]
      calls = re.findall(r'(?:calls|to_apply|body)=%?([\w.\-]+)', rest)
      operands = re.findall(r'%([\w.\-]+)', rest.split(')')[0])
      current.append(Instruction(match[1], opcode[1], tuple(operands), tuple(calls), match[2]))
  return module


def compiled_for(device: Any, function: Any, *arguments: Any) -> str:
  """The text of a program for one device, which may be a described one."""
  placement = sharding.replicated(sharding.make_mesh(1, 1, [device]))
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placement), arguments
  )
  return jax.jit(function).lower(*abstract).compile().as_text()
