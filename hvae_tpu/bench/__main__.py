"""The command: `python -m hvae_tpu.bench cwvae`."""

import sys

from absl import flags

from hvae_tpu import commands
from hvae_tpu.errors import UserError

ROUNDS = flags.DEFINE_integer('rounds', 5, 'How often every program is timed.', lower_bound=1)


def main(argv: list[str]) -> int:
  """Returns the exit code: 0; 2 for a mistake of the user."""
  # Imported late, as in main.py: --help and mistakes in flags should not wait for JAX.
  flags.declare_key_flag('config')
  name, rest = ('', argv[1:]) if argv[1:2] == [] or argv[1].startswith('-') else (argv[1], argv[2:])

  def run() -> int:
    import jax

    from hvae_tpu.bench import BENCHMARKS

    if name not in BENCHMARKS:
      raise UserError(f'give the name of a benchmark, one of {", ".join(BENCHMARKS)}; got {name!r}')
    with jax.default_matmul_precision(commands.precision(commands.CONFIG.value)):
      for line in BENCHMARKS[name].run(commands.CONFIG.value, ROUNDS.value):
        print(line, flush=True)
    return 0

  return commands.run([argv[0], *rest], lambda: None, run)


if __name__ == '__main__':
  sys.exit(main(sys.argv))
