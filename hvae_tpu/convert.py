"""Imports and exports weights: `python -m hvae_tpu.convert`.

    --from=openai_vdvae --source=FILE [--ema=FILE] --config=configs/cifar10.py --workdir=DIR
    --to=safetensors --workdir=DIR [--checkpoint=best] --output=FILE
    --hparams=FILE.cfg --output=CONFIG.py

The first makes a work directory for `--mode=eval`, `--mode=sample` and `train.init_from`. The
proofs that the weights are correct are printed, and stored with them. The last converts the
settings beside a checkpoint of Efficient-VDVAE to a config, for --config=CONFIG.py.
"""

import sys

from absl import flags

from hvae_tpu import commands

FROM = flags.DEFINE_string(
  'from',
  '',
  'Format of the source: openai_vdvae, vdvae_jax, efficient_vdvae_jax, efficient_vdvae_torch, '
  'nvae, nvae_seed, cwvae_jax, cwvae_tf, efficient_morl or hvae_tpu.',
)
SOURCE = flags.DEFINE_string('source', '', 'File of weights to read, or prefix of several.')
EMA = flags.DEFINE_string('ema', '', 'File of the moving average; by default that of --source.')
STEP = flags.DEFINE_integer('step', 0, 'Updates that the weights were trained for.', lower_bound=0)
VERIFY_EXAMPLES = flags.DEFINE_integer(
  'verify_examples', 0, 'Test examples to evaluate bits/dim (or nats) on.', lower_bound=0
)
TO = flags.DEFINE_enum('to', None, ['safetensors'], 'Format to write a run in.')
HPARAMS = flags.DEFINE_string(
  'hparams', '', 'hparams-*.cfg of Efficient-VDVAE, to convert to the config --output.'
)
OUTPUT = flags.DEFINE_string('output', '', 'File to write.')


NEEDED = {'from': ('source', 'workdir'), 'to': ('output', 'workdir'), 'hparams': ('output',)}


def main(argv: list[str]) -> int:
  """Runs the command; returns the exit code: 0; 2 for a mistake of the user."""
  for name in ('config', 'workdir', 'checkpoint'):
    flags.declare_key_flag(name)
  return commands.run(argv, _check, _convert)


def _check() -> None:
  tasks = [name for name in NEEDED if flags.FLAGS[name].value]
  if len(tasks) != 1:
    raise ValueError(
      'give either --from=FORMAT (import) or --to=safetensors (export), or --hparams=FILE.cfg (a '
      'config)'
    )
  for name in NEEDED[tasks[0]]:
    if not flags.FLAGS[name].value:
      raise ValueError(f'--{name} is missing, which --{tasks[0]} needs')
  if FROM.value and FROM.value != 'hvae_tpu' and commands.CONFIG.value is None:
    raise ValueError('--config=configs/<data set>.py of the weights is missing')


def _convert() -> int:
  # Imported late: --help and mistakes in flags should not wait for JAX.
  from hvae_tpu.importers import conversion, efficient_vdvae_cfg, export

  if HPARAMS.value:
    efficient_vdvae_cfg.write(HPARAMS.value, OUTPUT.value)
    print(f'wrote {OUTPUT.value}; use it with --config={OUTPUT.value}')
    return 0
  if TO.value:
    export.export_run(commands.WORKDIR.value, commands.CHECKPOINT.value, OUTPUT.value)
    return 0
  conversion.import_run(
    FROM.value,
    SOURCE.value,
    commands.WORKDIR.value,
    commands.CONFIG.value,
    ema=EMA.value,
    step=STEP.value if flags.FLAGS['step'].present else None,
    verify_examples=VERIFY_EXAMPLES.value,
  )
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
