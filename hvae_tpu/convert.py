"""Weights from and to other programs: `python -m hvae_tpu.convert`.

    --from=openai_vdvae --source=FILE [--ema=FILE] --config=configs/cifar10.py --workdir=DIR
    --to=safetensors --workdir=DIR [--checkpoint=best] --output=FILE

The first makes a work directory that `--mode=eval`, `--mode=sample` and `train.init_from` take. All
that is known of the weights' correctness is printed and stored with them.
"""

import sys

from absl import flags

from hvae_tpu import commands

FROM = flags.DEFINE_string(
  'from',
  '',
  'Format of the source: openai_vdvae, vdvae_jax, efficient_vdvae_jax, efficient_vdvae_torch or '
  'hvae_tpu.',
)
SOURCE = flags.DEFINE_string('source', '', 'File of weights to read.')
EMA = flags.DEFINE_string('ema', '', 'File of their moving average; by default the same weights.')
STEP = flags.DEFINE_integer('step', 0, 'Updates that the source was trained for.', lower_bound=0)
VERIFY = flags.DEFINE_string('verify', '', 'Forward file (.npz) of the reference, same weights.')
VERIFY_EXAMPLES = flags.DEFINE_integer(
  'verify_examples', 0, 'Number of test examples to measure bits/dim on.', lower_bound=0
)
TO = flags.DEFINE_enum('to', None, ['safetensors'], 'Format to write a run in.')
OUTPUT = flags.DEFINE_string('output', '', 'File to write.')


def main(argv: list[str]) -> int:
  """Returns the exit code: 0; 2 for a mistake of the user."""
  for name in ('config', 'workdir', 'checkpoint'):
    flags.declare_key_flag(name)
  return commands.run(argv, _check, _convert)


def _check() -> None:
  if bool(FROM.value) == bool(TO.value):
    raise ValueError('give either --from=FORMAT (import) or --to=safetensors (export)')
  needed = ('source', 'workdir') if FROM.value else ('output', 'workdir')
  for name in needed:
    if not flags.FLAGS[name].value:
      raise ValueError(f'--{name} is missing, which --{"from" if FROM.value else "to"} needs')
  if FROM.value and FROM.value != 'hvae_tpu' and commands.CONFIG.value is None:
    raise ValueError('--config=configs/<data set>.py of the weights is missing')


def _convert() -> int:
  # Imported late: --help and mistakes in flags should not wait for JAX.
  from hvae_tpu import conversion

  if TO.value:
    conversion.export_run(commands.WORKDIR.value, commands.CHECKPOINT.value, OUTPUT.value)
    return 0
  conversion.import_run(
    FROM.value,
    SOURCE.value,
    commands.WORKDIR.value,
    commands.CONFIG.value,
    ema=EMA.value,
    step=STEP.value if flags.FLAGS['step'].present else None,
    verify=VERIFY.value,
    verify_examples=VERIFY_EXAMPLES.value,
  )
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
