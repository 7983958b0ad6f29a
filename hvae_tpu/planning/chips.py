"""Published figures of TPU chips, and slices of chips described to the compiler."""

import importlib.util
import os
from typing import NamedTuple

import jax
from jax.experimental import topologies

from hvae_tpu.errors import UserError

GIB = 2**30
INSTALL = "install the TPU compiler with: pip install -e '.[tpu]'"


class Chip(NamedTuple):
  """Figures of one device as JAX counts them: half a chip for v2, v3 and 7x.

  Attributes:
    hbm: memory that the compiler lets a program use, bytes.
    flops: peak rate with bfloat16 operands, FLOP/s.
    hbm_bandwidth: bytes/s.
    ici_bandwidth: over all links between chips, bytes/s.
    clock: clock of the compiler's cycles, 1/s; derived from `flops` and the size of the matrix
      units.
  """

  hbm: float
  flops: float
  hbm_bandwidth: float
  ici_bandwidth: float
  clock: float


# https://cloud.google.com/tpu/docs: one page a version; figures per chip, halved if a chip is two
# devices. The limits of memory come from the compiler's error messages.
CHIPS = {
  'v2': Chip(7.48 * GIB, 23e12, 350e9, 31e9, 0.70e9),
  'v3': Chip(15.48 * GIB, 61.5e12, 450e9, 41e9, 0.94e9),
  'v4': Chip(30.75 * GIB, 275e12, 1228e9, 300e9, 1.05e9),
  'v5e': Chip(15.75 * GIB, 197e12, 819e9, 200e9, 1.50e9),
  'v5p': Chip(95.74 * GIB, 459e12, 2765e9, 600e9, 1.75e9),
  'v6e': Chip(31.25 * GIB, 918e12, 1640e9, 448e9, 1.75e9),
  'tpu7x': Chip(94.75 * GIB, 1153e12, 3690e9, 600e9, 2.20e9),
}
# Passes over the matrix unit that a float32 operation of each precision takes.
PASSES = {'default': 1, 'high': 3, 'highest': 6}


def split(text: str, flag: str = '--topology') -> list[str]:
  """Splits 'v5e:4x4,v4:2x2x2' into names of topologies.

  Raises:
    UserError: the list is empty, or a chip is unknown.
  """
  names = [name.strip() for name in text.split(',') if name.strip()]
  for name in names:
    generation, _, shape = name.partition(':')
    if generation not in CHIPS or not shape:
      raise UserError(
        f'{flag}={text}: {name!r} must be chip:shape, such as v5e:4x4 or v4:2x2x2; chips are '
        f'{", ".join(CHIPS)}'
      )
  if not names:
    raise UserError(f'{flag} is empty; give chip:shape, such as {flag}=v5e:4x4')
  return names


def chip_of(topology: str) -> Chip:
  """Returns the figures of the chip of a slice."""
  return CHIPS[topology.partition(':')[0]]


def describe(topology: str) -> list[jax.Device]:
  """Returns the described devices of a slice, for the compiler only. 'v5e:1x1' is one chip.

  Raises:
    UserError: this machine has no TPU compiler, or the chip has no slices of this shape.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise UserError(f'--mode=plan compiles for {topology} and needs libtpu; {INSTALL}')
  # Do not query a metadata server, and do not wait for other processes that hold the library.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  chip, _, shape = topology.partition(':')
  options = {}
  if chip == 'v4':
    options['chip_config_name'] = (
      'megacore'  # both cores of a chip are one device, as on the real machines
    )
  if set(shape) <= set('1x'):
    options['chips_per_host_bounds'] = (1, 1, 1)
  try:
    description = topologies.get_topology_desc(platform='tpu', topology_name=topology, **options)
    return list(description.devices)
  except Exception as error:  # the library raises many types
    reason = str(error).strip().splitlines()[0]
    raise UserError(
      f'--topology={topology} is no slice that the compiler knows ({reason}); v5e and v6e come as '
      '1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16, v4 and v5p as 2x2x1, 2x2x2, 2x2x4, 2x4x4, 4x4x4'
    ) from error
