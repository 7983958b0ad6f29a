"""The command: `python -m hvae_tpu.main --config=configs/cifar10.py --mode=train`.

Flags are read here, and mistakes in them are told in one sentence with exit code 2.
"""

import os
from pathlib import Path
import sys

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'configs/<data set>.py[:system[,variant...]]; change a value by --config.a.b=c.'
)
WORKDIR = flags.DEFINE_string('workdir', '', 'Of the run; by default runs/<config>-<argument>.')
MODE = flags.DEFINE_string('mode', 'train', 'train, eval, sample or reset.')
CHECKPOINT = flags.DEFINE_string(
  'checkpoint', 'latest', 'latest, best, a step, or another work directory; not for train.'
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
CACHE = os.path.expanduser('~/.cache/hvae_tpu/jax')


def main(argv: list[str]) -> int:
  """Returns the exit code: 0; 2 for a mistake of the user; 130 after Ctrl-C."""
  app.define_help_flags()
  try:
    rest = flags.FLAGS(argv)
    if rest[1:]:
      raise ValueError(f'unexpected argument {rest[1]!r}; flags start with --')
    if CONFIG.value is None:
      raise ValueError('--config=configs/<data set>.py is missing')
  except Exception as error:  # the flag library and config files raise anything
    print(f'error: {_flag_problem(error)}', file=sys.stderr)
    return 2
  # Imported late: --help and mistakes in flags should not wait for JAX.
  import jax

  from hvae_tpu import distributed
  from hvae_tpu.errors import UserError
  from hvae_tpu.modes import MODES

  logging.set_verbosity(logging.ERROR)  # libraries remark on their own options
  jax.config.update('jax_compilation_cache_dir', os.environ.get('JAX_COMPILATION_CACHE_DIR', CACHE))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  config = CONFIG.value
  workdir = Path(WORKDIR.value or f'runs/{config.name}')
  try:
    if MODE.value not in MODES:
      raise UserError(f'--mode={MODE.value} must be one of {", ".join(MODES)}')
    distributed.start(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    # Applied once, around all tracing: it reaches every convolution, product and gradient.
    with jax.default_matmul_precision(_precision(config)):
      return MODES[MODE.value].run(config, workdir, CHECKPOINT.value)
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    return 130


def _precision(config) -> str:
  from hvae_tpu.errors import UserError

  known = ('default', 'high', 'highest')
  if config.train.precision not in known:
    raise UserError(
      f'config.train.precision={config.train.precision!r} must be one of {", ".join(known)}'
    )
  return config.train.precision


def _flag_problem(error: Exception) -> str:
  """One sentence for whatever reading the flags and the config file raised."""
  text = str(error).strip().splitlines()
  last = text[-1] if text else type(error).__name__
  if isinstance(error, ModuleNotFoundError) and (error.name or '').startswith('configs'):
    return (
      f'{error}: a config file imports its system from configs/systems of the checkout; start the '
      f'command in the checkout, or install it with: pip install -e .'
    )
  return last


if __name__ == '__main__':
  sys.exit(main(sys.argv))
