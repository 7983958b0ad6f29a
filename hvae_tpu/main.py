"""The command: `python -m hvae_tpu.main --config=configs/cifar10.py --mode=train`.

Flags are read here. A mistake in them is answered with one sentence and exit code 2.
"""

import os
from pathlib import Path
import re
import sys

from absl import flags

from hvae_tpu import commands
from hvae_tpu.errors import UserError


def mode_descriptions() -> dict[str, str]:
  """Reads the modes and their descriptions from the first lines of their files.

  Nothing is imported, so that --help does not wait for JAX.
  """
  first_lines = []
  for path in sorted((Path(__file__).parent / 'modes').glob('*.py')):
    with open(path) as file:
      first_lines.append(file.readline())
  matches = [re.match(r'"""`--mode=(\w+)`: (.*?)\.?(?:""")?$', line) for line in first_lines]
  return {match[1]: match[2] for match in matches if match}


MODE = flags.DEFINE_string(
  'mode', 'train', '\n'.join(f'{name}: {text}' for name, text in mode_descriptions().items())
)
TOPOLOGY = flags.DEFINE_string(
  'topology', '', 'For --mode=plan: TPU slices such as v5e:4x4,v4:2x2x2; no TPU is needed.'
)
# For several processes. JAX knows an environment variable for each of these flags, too.
COORDINATOR = flags.DEFINE_string(
  'coordinator',
  os.environ.get('JAX_COORDINATOR_ADDRESS', ''),
  'host:port of process 0; auto on a TPU pod; empty for one process.',
)
NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', int(os.environ.get('JAX_NUM_PROCESSES', 1)), 'With --coordinator=host:port.'
)
PROCESS_ID = flags.DEFINE_integer(
  'process_id', int(os.environ.get('JAX_PROCESS_ID', 0)), 'With --coordinator=host:port.'
)


def main(argv: list[str]) -> int:
  """Returns the exit code: 0; 2 for a mistake of the user; 75 to try again; 130 after Ctrl-C."""
  for name in ('config', 'workdir', 'checkpoint'):
    flags.declare_key_flag(name)
  return commands.run(argv, _check, _run_mode)


def _check() -> None:
  if commands.CONFIG.value is None:
    raise ValueError('--config=configs/<data set>.py is missing')


def _run_mode() -> int:
  # Imported late: --help and mistakes in flags should not wait for JAX.
  import jax

  from hvae_tpu.devices import distributed
  from hvae_tpu.modes import MODES
  from hvae_tpu.storage import buckets

  config = commands.CONFIG.value
  workdir = buckets.as_path(commands.WORKDIR.value or f'runs/{config.name}')
  if MODE.value not in MODES:
    raise UserError(f'--mode={MODE.value} must be one of {", ".join(MODES)}')
  if TOPOLOGY.value:
    config.plan.topology = TOPOLOGY.value
  in_buckets = [name for name, mode in MODES.items() if getattr(mode, 'IN_BUCKETS', False)]
  if buckets.is_remote(workdir) and MODE.value not in in_buckets:
    raise UserError(
      f'--mode={MODE.value} needs a --workdir on a disk, found {workdir}; only the modes '
      f'{", ".join(in_buckets)} take one in a bucket'
    )
  heartbeat = config.train.heartbeat_seconds
  distributed.start(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, heartbeat)
  # Applied once, around all tracing: it reaches every convolution, product and gradient.
  precision = jax.default_matmul_precision(config.train.precision)
  with distributed.leaving_together(heartbeat), precision:
    return MODES[MODE.value].run(config, workdir, commands.CHECKPOINT.value)


if __name__ == '__main__':
  sys.exit(main(sys.argv))
