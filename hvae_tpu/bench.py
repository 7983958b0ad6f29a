"""The command: `python -m hvae_tpu.bench cwvae`."""

import importlib
import sys

from absl import flags

from hvae_tpu import commands
from hvae_tpu.planning.benchmarks import BENCHMARKS

PARTS = flags.DEFINE_list('parts', [], 'Parts to time; default: all.')
ROUNDS = flags.DEFINE_integer('rounds', 5, 'Timed calls of every program.', lower_bound=1)


def main(argv: list[str]) -> int:
  """Runs the command and returns its exit code: 0, or 2 for a user error."""
  flags.declare_key_flag('config')
  program, name, *rest = (*argv, '')[: max(2, len(argv))]
  if name not in BENCHMARKS:
    known = ', '.join(BENCHMARKS)
    print(f'error: the first argument must be a benchmark: {known}; got {name!r}', file=sys.stderr)
    return 2
  # `--config` must come before the changes of its fields.
  if not any(argument.startswith('--config=') for argument in rest):
    rest.insert(0, f'--config={BENCHMARKS[name]}')
  return commands.run([program, *rest], lambda: None, lambda: _run(name))


def _run(name: str) -> int:
  # Imported late, so that --help and wrong flags do not wait for JAX.
  import jax

  benchmark = importlib.import_module(f'hvae_tpu.planning.benchmarks.{name}')
  with jax.default_matmul_precision(commands.CONFIG.value.train.precision):
    for line in benchmark.run(commands.CONFIG.value, ROUNDS.value, PARTS.value):
      print(line, flush=True)
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
