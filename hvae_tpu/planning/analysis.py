"""What a program needs on a chip: compiled, or from the record of an earlier compilation."""

from collections.abc import Iterator
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import math
import os
from pathlib import Path
import re
import resource
import time
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from hvae_tpu.errors import UserError
from hvae_tpu.planning import hlo, work
from hvae_tpu.planning.programs import Traced
from hvae_tpu.storage import files

CACHE = Path('~/.cache/hvae_tpu/plan').expanduser()
FORMAT = 2  # of the records; another one whenever a program is read in another way
COMPILER_OPTIONS = ('LIBTPU_INIT_ARGS', 'XLA_FLAGS')  # of the environment
# Two wordings: needed for temporaries alone, and in all.
NEEDED = re.compile(r'([\d.]+)([KMG])(?:\) exceeds available HBM| of \S+ hbm)')
UNITS = {'K': 2**10, 'M': 2**20, 'G': 2**30}


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What the compiler says of a program, per device, in bytes and cycles.

  Attributes:
    fits: whether it could be compiled within the memory of the chip.
    peak: of memory at any time, arguments included; where it does not fit, what the compiler says
      is needed, which may leave out the arguments.
    arguments, temporaries, code: its parts as the compiler reports them. Temporaries may count
      more than is alive at once.
    collectives: kind -> (count, bytes, bytes sent by a device).
    cycles: estimated by the compiler, without copies that move beside the computation.
    precisions: convolutions and products at each operand precision.
    seconds: of compilation.
    host_peak: memory of this process so far.
  """

  fits: bool
  peak: float
  arguments: float = 0.0
  temporaries: float = 0.0
  code: float = 0.0
  collectives: dict[str, tuple[int, float, float]] = dataclasses.field(default_factory=dict)
  cycles: float = 0.0
  precisions: dict[str, int] = dataclasses.field(default_factory=dict)
  seconds: float = 0.0
  host_peak: float = 0.0


@dataclasses.dataclass(frozen=True)
class Analysis:
  """A program on a slice.

  Attributes:
    parameters: of the model.
    state_bytes: of the train state on one device.
    batch_size: global.
    devices: of the slice.
    work: of all devices together, in one run.
    compiled: on one device.
    beside: bytes of the train state on a device that the program does not read, but that are there.
  """

  parameters: int
  state_bytes: float
  batch_size: int
  devices: int
  work: work.Work
  compiled: Compiled
  beside: float = 0.0

  def fits(self, hbm: float) -> bool:
    """Whether it runs on a device of so many bytes, with what lies beside it."""
    return self.compiled.fits and self.compiled.peak + self.beside <= hbm

  def peak_on(self, devices: int) -> float:
    """Bytes to expect on each of another number of devices, where all hold the whole state."""
    batch = max(self.compiled.peak - self.state_bytes, 0.0)
    return self.state_bytes + batch * self.devices / devices


def analyse(traced: Traced, topology: str, effort: str = '', cache: Path = CACHE) -> Analysis:
  """Compiles for the slice that `traced` lies on, unless the same was compiled before.

  Args:
    traced: see `programs`.
    topology: name of the slice.
    effort: of the compiler; 'EFFORT_O1' is for tests of memory only.
    cache: folder of records.

  Raises:
    UserError: the compiler failed, other than for want of memory.
  """
  return Analysis(
    parameters=sum(x.size for x in jax.tree.leaves(traced.state.params)),
    state_bytes=_resident(traced.state),
    batch_size=traced.batch_size,
    devices=traced.mesh.size,
    work=work.count(traced.trace.jaxpr),
    compiled=_compile(traced, topology, effort, cache),
    beside=_resident(traced.beside),
  )


def _resident(tree: Any) -> float:
  """Bytes of abstract arrays on one device."""
  leaves = jax.tree.leaves(tree)
  return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


def _compile(traced: Traced, topology: str, effort: str, cache: Path) -> Compiled:
  lowered = traced.trace.lower()
  versions = [importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'libtpu')]
  variables = [os.environ.get(name, '') for name in COMPILER_OPTIONS]
  digest = hashlib.sha256(repr((FORMAT, topology, effort, versions, variables)).encode())
  digest.update(lowered.as_text().encode())
  record = cache / f'{digest.hexdigest()[:32]}.json'
  if record.exists():
    return Compiled(**files.read_json(record, 'delete it'))
  options = {'xla_optimization_level': effort} if effort else {}
  began = time.perf_counter()
  try:
    with _without_cache_of_jax():
      compiled = lowered.compile(compiler_options=options)
  except jax.errors.JaxRuntimeError as error:
    found = _too_large(error, topology)
  else:
    found = _read(compiled, traced.mesh.size)
  found = dataclasses.replace(
    found,
    seconds=time.perf_counter() - began,
    host_peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
  )
  files.save_json(record, dataclasses.asdict(found), indent=None, end='', strict=False)
  return found


@contextlib.contextmanager
def _without_cache_of_jax() -> Iterator[None]:
  """That cache would keep what is compiled for devices that are not there, but cannot load it."""
  before = jax.config.jax_enable_compilation_cache
  jax.config.update('jax_enable_compilation_cache', False)
  compilation_cache.reset_cache()  # it asks once whether it is enabled
  try:
    yield
  finally:
    jax.config.update('jax_enable_compilation_cache', before)
    compilation_cache.reset_cache()


def _too_large(error: Exception, topology: str) -> Compiled:
  """The answer for a program that does not fit; UserError for any other failure."""
  text = str(error)
  match = NEEDED.search(text)
  if 'RESOURCE_EXHAUSTED' not in text or match is None:
    raise UserError(
      f'the compiler for {topology} failed: {text.strip().splitlines()[0]}'
    ) from error
  return Compiled(fits=False, peak=float(match[1]) * UNITS[match[2]])


def _read(compiled: Any, num_devices: int) -> Compiled:
  memory, program = compiled.memory_analysis(), hlo.Program(compiled.as_text(), num_devices)
  return Compiled(
    fits=True,
    peak=memory.peak_memory_in_bytes,
    arguments=memory.argument_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
    code=memory.generated_code_size_in_bytes,
    collectives={kind: tuple(traffic) for kind, traffic in program.collectives().items()},
    cycles=program.cycles(),
    precisions=dict(program.precisions()),
  )
