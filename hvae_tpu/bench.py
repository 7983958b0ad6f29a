"""The command: `python -m hvae_tpu.bench cwvae`."""

import importlib
import sys

from absl import flags

from hvae_tpu import commands
from hvae_tpu.planning.bench import BENCHMARKS

PARTS = flags.DEFINE_list('parts', [], 'Of the benchmark; by default all.')
ROUNDS = flags.DEFINE_integer('rounds', 5, 'How often every program is timed.', lower_bound=1)


def main(argv: list[str]) -> int:
  """Returns the exit code: 0; 2 for a mistake of the user."""
  flags.declare_key_flag('config')
  program, name, *rest = (*argv, '')[: max(2, len(argv))]
  if name not in BENCHMARKS:
    known = ', '.join(BENCHMARKS)
    print(f'error: the first argument must be a benchmark: {known}; got {name!r}', file=sys.stderr)
    return 2
  # Changes of a config must come behind it.
  if not any(argument.startswith('--config=') for argument in rest):
    rest.insert(0, f'--config={BENCHMARKS[name]}')
  return commands.run([program, *rest], lambda: None, lambda: _run(name))


def _run(name: str) -> int:
  # Imported late: --help and mistakes in flags should not wait for JAX.
  import jax

  benchmark = importlib.import_module(f'hvae_tpu.planning.bench.{name}')
  with jax.default_matmul_precision(commands.precision(commands.CONFIG.value)):
    for line in benchmark.run(commands.CONFIG.value, ROUNDS.value, PARTS.value):
      print(line, flush=True)
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
