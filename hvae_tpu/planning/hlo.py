"""Reader of compiled TPU programs: traffic between chips, precisions and estimated cycles.

It reads the text that `compiled.as_text()` returns. Loops count as often as they run.
"""

from collections.abc import Iterator, Mapping
import math
import re
from typing import NamedTuple

HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$')
INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$')
OPCODE = re.compile(r'(?<=[\s)}])([a-z][\w\-]*)\(')
SHAPE = re.compile(r'\b(pred|bf16|[suf]\d+(?:e\d+m\d+\w*)?|c\d+)\[([\d,]*)\]')
CALLED = re.compile(r'\b(?:calls|body|to_apply)=%?([\w.\-]+)')
BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
CONDITION = re.compile(r'\bcondition=%?([\w.\-]+)')
CONSTANT = re.compile(r's32\[\]\S* constant\((\d+)\)')
KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
GROUP = re.compile(r'replica_groups=(\{\{[\d,]*\}|mesh\[([^\]]*)\] \{([^}]*)\}|\[(\d+),(\d+)\])')
COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'collective-permute',
  'all-to-all',
  'ragged-all-to-all',
)
REDUCE_SCATTER_FUSION = 'all-reduce-scatter'  # the TPU compiler's name for such fusions


class Instruction(NamedTuple):
  """One line of a program: name, opcode, result types, and the text behind `=`."""

  name: str
  opcode: str
  result: str
  text: str


class Traffic(NamedTuple):
  """Traffic of one kind of collective in one run of the program.

  Attributes:
    count: number of executions.
    bytes: size of the results on one device (of the operands for a reduce-scatter).
    wire_bytes: bytes that one device sends if the collective goes round a ring.
  """

  count: int
  bytes: float
  wire_bytes: float


class Program:
  """A compiled program, parsed from its text.

  Args:
    text: text of the compiled program.
    num_devices: number of devices that it runs on.
  """

  def __init__(self, text: str, num_devices: int):
    self.num_devices = num_devices
    self.computations, self.entry = _parse(text)
    self.rounds = dict(self._rounds(self.entry, 1))

  def _rounds(self, name: str, times: int) -> Iterator[tuple[str, int]]:
    """Counts the runs of each computation that is not fused into one operation."""
    runs: dict[str, int] = {name: times}
    for instruction in self.computations.get(name, ()):
      if instruction.opcode in ('while', 'call', 'conditional', 'async-start'):
        inner = times * (self.trips(instruction) if instruction.opcode == 'while' else 1)
        for callee in callees(instruction):
          for key, value in self._rounds(callee, inner):
            runs[key] = runs.get(key, 0) + value
    return iter(runs.items())

  def trips(self, loop: Instruction) -> int:
    """Returns the iterations of a counting loop: noted by the compiler, or the limit it tests."""
    if noted := KNOWN_TRIPS.search(loop.text):
      return int(noted[1])
    condition = self.computations.get(CONDITION.search(loop.text)[1], [])
    called = [line for i in condition for name in callees(i) for line in self.computations[name]]
    constants = [int(m[1]) for i in condition + called if (m := CONSTANT.search(i.text))]
    return max(constants, default=1)

  def collectives(self) -> Mapping[str, Traffic]:
    """Returns the traffic between devices in one run, by kind of collective."""
    traffic: dict[str, Traffic] = {}
    for name, times in self.rounds.items():
      for instruction in self.computations.get(name, ()):
        kind, size = self._collective(instruction)
        if kind:
          old = traffic.get(kind, Traffic(0, 0.0, 0.0))
          wire = size * self._ring_share(kind, self._group_size(instruction))
          traffic[kind] = Traffic(
            old.count + times, old.bytes + times * size, old.wire_bytes + times * wire
          )
    return traffic

  def _collective(self, instruction: Instruction) -> tuple[str, float]:
    """Returns the kind of a collective and its bytes; the kind is empty for other instructions."""
    opcode = instruction.opcode.removesuffix('-start')
    if self._scattered(instruction):
      opcode = 'reduce-scatter'
    if opcode not in COLLECTIVES:
      return '', 0.0
    size = _size(instruction.result)
    if instruction.opcode.endswith('-start') and opcode != 'all-reduce':
      # The operands come first, then as many results, then scalars for bookkeeping.
      arrays = SHAPE_PARTS.findall(instruction.result)
      size = sum(map(_size, arrays[len(arrays) // 2 :]))
    if opcode == 'reduce-scatter':
      size *= self._group_size(instruction)
    return opcode, size

  def _scattered(self, instruction: Instruction) -> Instruction | None:
    """Returns the all-reduce inside a fusion that keeps only a part of its result, or None."""
    callee = next(iter(callees(instruction)), '') if instruction.opcode == 'fusion' else ''
    if not callee.startswith(REDUCE_SCATTER_FUSION):
      return None
    inner = self.computations[callee]
    return next(i for i in inner if i.opcode.removesuffix('-start') == 'all-reduce')

  def _group_size(self, instruction: Instruction) -> int:
    """Returns the number of devices in each group of a collective."""
    match = GROUP.search((self._scattered(instruction) or instruction).text)
    if match is None:
      return self.num_devices
    if match[2] is not None:  # mesh['axis_0'=1,'axis_1'=4] {'axis_1'}
      sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[2]))
      return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[3]))
    if match[5] is not None:  # [2,4]: 2 groups of 4
      return int(match[5])
    return match[1].count(',') + 1

  @staticmethod
  def _ring_share(kind: str, group: int) -> float:
    """Returns the bytes that a device of a ring sends, per byte of the collective."""
    if kind == 'collective-permute':
      return 1.0
    return (2.0 if kind == 'all-reduce' else 1.0) * (group - 1) / group

  def cycles(self) -> float:
    """Returns the compiler's estimate of one run, without copies that overlap with computation."""
    total = 0
    for name, times in self.rounds.items():
      for instruction in self.computations.get(name, ()):
        match = CYCLES.search(instruction.text)
        total += times * int(match[1]) if match else 0
    return total

  def precisions(self) -> Mapping[str, int]:
    """Counts convolutions by operand precision; matrix products are convolutions on a TPU."""
    counts: dict[str, int] = {}
    for instructions in self.computations.values():
      for instruction in instructions:
        if instruction.opcode == 'convolution':
          match = re.search(r'operand_precision=\{(\w+),', instruction.text)
          name = match[1] if match else 'default'
          counts[name] = counts.get(name, 0) + 1
    return counts


SHAPE_PARTS = re.compile(r'(?:pred|bf16|[suf]\d+|c\d+)\[[\d,]+\]')


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
  """Returns the computations by name, and the name of the entry computation."""
  computations: dict[str, list[Instruction]] = {}
  entry, lines = '', []
  for line in text.splitlines():
    if header := HEADER.match(line):
      lines = computations.setdefault(header[2], [])
      entry = header[2] if header[1] else entry
    elif match := INSTRUCTION.match(line):
      opcode = OPCODE.search(' ' + match[2])
      if opcode:
        result = match[2][: opcode.start()]
        lines.append(Instruction(match[1], opcode[1], result.strip(), match[2]))
  return computations, entry


def callees(instruction: Instruction) -> list[str]:
  """Returns the computations that an instruction runs, without the condition of a loop."""
  names = CALLED.findall(instruction.text)
  if branches := BRANCHES.search(instruction.text):
    names += [name.strip().lstrip('%') for name in branches[1].split(',')]
  return names


def _size(types: str) -> float:
  """Returns the bytes of the arrays in a result type."""
  total = 0.0
  for dtype, shape in SHAPE.findall(types):
    bits = 8 if dtype == 'pred' else int(re.search(r'\d+', dtype)[0])
    total += bits / 8 * math.prod(int(n) for n in shape.split(',') if n)
  return total
