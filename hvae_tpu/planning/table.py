"""Tables of configs: `python -m hvae_tpu.table [--which=slices] [--configs=FILE[:ARG] ...]`.

`configs`: parameters and published numbers. `slices`: the smallest TPU slice on which a config fits
at its batch size, with memory, and days as estimated by `--mode=plan`; it compiles for hours, keeps
what it has compiled, and goes on from there when started again. Needs libtpu, but no TPU.
"""

from collections.abc import Iterator
import importlib.metadata
import sys
from typing import Any

from absl import flags
import ml_collections

from hvae_tpu import commands
from hvae_tpu.errors import UserError

WHICH = flags.DEFINE_enum('which', 'configs', ['configs', 'slices'], 'The table to print.')
CONFIGS = flags.DEFINE_list('configs', [], 'FILE or FILE:SYSTEM; their commas as +; else a dozen.')
SLICES = flags.DEFINE_list(
  'slices',
  ['v5e:1x1', 'v5e:2x2', 'v5e:2x4', 'v5e:4x4', 'v5e:4x8', 'v5e:8x8', 'v5e:8x16'],
  'Slices to try, the smallest first.',
)
PRECISION = flags.DEFINE_string(
  'precision', None, "In place of the configs' own; `default` compiles three times faster."
)
MARGIN = 1.1  # by which an expected peak must be too large for a slice to be left out
PUBLISHED = (  # as FILE:SYSTEM, the variants after +
  'cifar10:vdvae',
  'imagenet32:vdvae',
  'imagenet64:vdvae',
  'ffhq256:vdvae',
  'ffhq1024:vdvae',
  'cifar10:efficient_vdvae',
  'imagenet64_box:efficient_vdvae',
  'ffhq256:efficient_vdvae+5bit',
  'cifar10:nvae',
  'celeba64:nvae',
  'mnist:nvae',
  'ffhq256:nvae',  # last: its compiler may want more memory than the host has
)


def main(argv: list[str]) -> int:
  """Returns the exit code: 0; 2 for a mistake of the user."""
  return commands.run(argv, lambda: None, _print)


def _print() -> int:
  names = CONFIGS.value or [f'configs/{name.replace(":", ".py:")}' for name in PUBLISHED]
  loaded = {name.replace('+', ','): commands.load_config(name.replace('+', ',')) for name in names}
  rows = _config_rows(loaded) if WHICH.value == 'configs' else _slice_rows(loaded, SLICES.value)
  for row in rows:
    print(row, flush=True)  # as they are made: a row may take an hour
  versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'flax'))
  print(f'\n`python -m hvae_tpu.table --which={WHICH.value}`, {versions}')
  return 0


def _config_rows(loaded: dict[str, ml_collections.ConfigDict]) -> Iterator[str]:
  yield '| config | parameters | published bits/dim |'
  yield '| --- | --- | --- |'
  for name, config in loaded.items():
    published = config.evals.published_bpd
    yield f'| `{name}` | {count(config):,} | {"-" if published is None else f"{published:.2f}"} |'


def count(config: ml_collections.ConfigDict) -> int:
  """Parameters of a config's model; nothing is computed."""
  import jax

  from hvae_tpu import models
  from hvae_tpu.planning import programs

  model = models.create(config.model.to_dict(), 'tpu')
  batch = programs.batch_shapes(config, 1, config.data.seq_len)
  params, _ = jax.eval_shape(model.init, jax.random.key(0), batch)
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def _slice_rows(loaded: dict[str, ml_collections.ConfigDict], slices: list[str]) -> Iterator[str]:
  import jax

  from hvae_tpu.planning import chips

  slices = chips.split(','.join(slices), '--slices')
  yield '| config | slice | batch | a device | remat | peak GiB | days, least | days, planned |'
  yield '| --- | --- | --- | --- | --- | --- | --- | --- |'
  for name, config in loaded.items():
    config.train.precision = PRECISION.value or config.train.precision
    with jax.default_matmul_precision(commands.precision(config)):
      yield _smallest(name, config, slices)


def _smallest(name: str, config: ml_collections.ConfigDict, slices: list[str]) -> str:
  from hvae_tpu.planning import chips, plan_report, planning

  batch, most, last = config.train.batch_size, 0.0, None
  for topology in slices:
    limit = MARGIN * chips.chip_of(topology).hbm
    if last and last.peak_on(len(chips.describe(topology))) > limit:
      continue
    try:
      found = planning.make(config, topology, ('train',))
    except UserError as error:
      if 'must be a positive multiple' in str(error):
        continue  # a slice with more devices than examples
      raise
    last = found.analyses['train']
    compiled = last.compiled
    most = compiled.peak
    if found.fits:
      least, planned = found.days()
      return _row(
        f'`{name}`',
        topology,
        batch,
        f'{batch / last.devices:g}',
        found.settings['remat'],
        f'{compiled.peak / plan_report.GIB:.1f}',
        f'{least:.2g}' if least else '-',  # steps that only the data set knows
        f'{planned:.2g}' if planned else '-',
      )
  return _row(
    f'`{name}`', 'none of these', batch, '', '', f'> {most / plan_report.GIB:.1f}', '', ''
  )


def _row(*cells: Any) -> str:
  return f'| {" | ".join(str(cell) for cell in cells)} |'


if __name__ == '__main__':
  sys.exit(main(sys.argv))
