"""Memory, traffic and work of a compiled program; compilations are cached as JSON records."""

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
FORMAT = 2  # of the records; goes up when programs are read in another way
COMPILER_OPTIONS = ('LIBTPU_INIT_ARGS', 'XLA_FLAGS')  # environment variables
# Two wordings: the memory needed for temporaries alone, and in total.
NEEDED = re.compile(r'([\d.]+)([KMG])(?:\) exceeds available HBM| of \S+ hbm)')
UNITS = {'K': 2**10, 'M': 2**20, 'G': 2**30}


@dataclasses.dataclass(frozen=True)
class Compiled:
  """The compiler's figures of a program on one device.

  Attributes:
    fits: whether the program could be compiled within the memory of the chip.
    peak: largest memory in use at any time, arguments included, bytes. If the program does not
      fit: the memory that the compiler asks for, which may leave out the arguments.
    arguments, temporaries, code: parts of the memory as the compiler reports them, bytes.
      Temporaries may count more than is alive at once.
    collectives: kind -> (count, bytes, bytes sent by a device).
    cycles: estimated by the compiler, without copies that overlap with the computation.
    precisions: operand precision -> number of convolutions and matrix products.
    seconds: time of the compilation.
    host_peak: largest memory of this process so far, bytes.
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
  """Analysis of a program on a slice.

  Attributes:
    parameters: number of parameters of the model.
    state_bytes: train state on one device, bytes.
    batch_size: global batch size.
    devices: number of devices of the slice.
    work: work of one run, of all devices together.
    compiled: the compiler's figures, of one device.
    beside: bytes on a device of the train state that stays there but is not read by the program.
  """

  parameters: int
  state_bytes: float
  batch_size: int
  devices: int
  work: work.Work
  compiled: Compiled
  beside: float = 0.0

  def fits(self, hbm: float) -> bool:
    """Returns whether the program and the state beside it fit into a device of `hbm` bytes."""
    return self.compiled.fits and self.compiled.peak + self.beside <= hbm

  def peak_on(self, devices: int) -> float:
    """Predicts the peak, bytes a device, on another number of devices that all hold the state."""
    batch = max(self.compiled.peak - self.state_bytes, 0.0)
    return self.state_bytes + batch * self.devices / devices


def analyse(traced: Traced, topology: str, effort: str = '', cache: Path = CACHE) -> Analysis:
  """Compiles a program for its slice, unless the same program was compiled before.

  Args:
    traced: a program of `programs`, traced for the devices of the slice.
    topology: name of the slice.
    effort: effort level of the compiler; 'EFFORT_O1' is for tests of memory only.
    cache: folder of records.

  Raises:
    UserError: the compiler failed for another reason than memory.
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
  """Returns the bytes of abstract arrays on one device."""
  leaves = jax.tree.leaves(tree)
  return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


def _compile(traced: Traced, topology: str, effort: str, cache: Path) -> Compiled:
  """Returns the record of a compilation; compiles and writes it if there is none."""
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
    with _without_jax_cache():
      executable = lowered.compile(compiler_options=options)
  except jax.errors.JaxRuntimeError as error:
    compiled = _too_large(error, topology)
  else:
    compiled = _read(executable, traced.mesh.size)
  compiled = dataclasses.replace(
    compiled,
    seconds=time.perf_counter() - began,
    host_peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
  )
  files.save_json(record, dataclasses.asdict(compiled), indent=None, end='', strict=False)
  return compiled


@contextlib.contextmanager
def _without_jax_cache() -> Iterator[None]:
  """Disables JAX's compilation cache, which cannot load programs for described devices."""
  before = jax.config.jax_enable_compilation_cache
  jax.config.update('jax_enable_compilation_cache', False)
  compilation_cache.reset_cache()  # JAX checks only once whether the cache is enabled
  try:
    yield
  finally:
    jax.config.update('jax_enable_compilation_cache', before)
    compilation_cache.reset_cache()


def _too_large(error: Exception, topology: str) -> Compiled:
  """Returns the record of a program that does not fit; raises UserError for other failures."""
  text = str(error)
  match = NEEDED.search(text)
  if 'RESOURCE_EXHAUSTED' not in text or match is None:
    raise UserError(
      f'the compiler for {topology} failed: {text.strip().splitlines()[0]}'
    ) from error
  return Compiled(fits=False, peak=float(match[1]) * UNITS[match[2]])


def _read(executable: Any, num_devices: int) -> Compiled:
  """Reads the figures of a compiled program."""
  memory, program = executable.memory_analysis(), hlo.Program(executable.as_text(), num_devices)
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
