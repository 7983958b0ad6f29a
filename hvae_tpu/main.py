"""The command: `python -m hvae_tpu.main --config=configs/cifar10.py --mode=train`.

Flags are read here, and mistakes in them are told in one sentence with exit code 2.
"""

import os
import sys

from absl import flags

from hvae_tpu import commands
from hvae_tpu.errors import UserError

MODE = flags.DEFINE_string(
  'mode',
  'train',
  'train, eval, sample, div_stats, reconstruct, encode, decode, explore, interpolate, pick, '
  'quality, report, open_loop, segment, disentangle, traverse, geco_target, plan, replay or reset.',
)
TOPOLOGY = flags.DEFINE_string(
  'topology', '', 'Of --mode=plan: TPU slices such as v5e:4x4,v4:2x2x2; no TPU is needed.'
)
# Of several processes; each also by the environment variable that JAX knows.
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
IN_BUCKETS = ('train', 'eval', 'sample')


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
  if buckets.is_remote(workdir) and MODE.value not in IN_BUCKETS:
    raise UserError(
      f'--mode={MODE.value} needs a --workdir on a disk, found {workdir}; of the modes only '
      f'{", ".join(IN_BUCKETS)} write to a bucket'
    )
  heartbeat = config.train.heartbeat_seconds
  distributed.start(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, heartbeat)
  # Applied once, around all tracing: it reaches every convolution, product and gradient.
  precision = jax.default_matmul_precision(config.train.precision)
  with distributed.leaving_together(heartbeat), precision:
    return MODES[MODE.value].run(config, workdir, commands.CHECKPOINT.value)


if __name__ == '__main__':
  sys.exit(main(sys.argv))
