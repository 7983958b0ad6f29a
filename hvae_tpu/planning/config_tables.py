"""Tables of configs, `python -m hvae_tpu.table [--which=slices] [--configs=FILE[:ARG] ...]`.

`configs`: parameters and published numbers. `slices`: the smallest TPU slice on which a config fits
at its batch size, with memory, and days as estimated by `--mode=plan`. This compiles for hours; it
keeps finished compilations and continues from there when started again. It needs libtpu, no TPU.
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
CONFIGS = flags.DEFINE_list(
  'configs', [], 'FILE or FILE:SYSTEM, with + for commas; default: a dozen.'
)
SLICES = flags.DEFINE_list(
  'slices',
  ['v5e:1x1', 'v5e:2x2', 'v5e:2x4', 'v5e:4x4', 'v5e:4x8', 'v5e:8x8', 'v5e:8x16'],
  'Slices to try, the smallest first.',
)
PRECISION = flags.DEFINE_enum(
  'precision',
  None,
  ('default', 'high', 'highest'),
  "Replaces the configs' precision; `default` compiles three times faster.",
)
MARGIN = 1.1  # a slice is skipped if the expected peak exceeds its memory by this factor
PUBLISHED = (  # FILE:SYSTEM, with variants after +
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
  'ffhq256:nvae',  # last: its compilation may need more memory than the host has
)


def main(argv: list[str]) -> int:
  """Runs the command and returns its exit code: 0, or 2 for a user error."""
  return commands.run(argv, lambda: None, _print)


def _print() -> int:
  names = CONFIGS.value or [f'configs/{name.replace(":", ".py:")}' for name in PUBLISHED]
  loaded = {name.replace('+', ','): commands.load_config(name.replace('+', ',')) for name in names}
  rows = _config_rows(loaded) if WHICH.value == 'configs' else _slice_rows(loaded, SLICES.value)
  for row in rows:
    print(row, flush=True)  # at once: the next row may take an hour
  versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'flax'))
  print(f'\n`python -m hvae_tpu.table --which={WHICH.value}`, {versions}')
  return 0


def _config_rows(loaded: dict[str, ml_collections.ConfigDict]) -> Iterator[str]:
  yield '| config | parameters | published bits/dim |'
  yield '| --- | --- | --- |'
  for name, config in loaded.items():
    published = config.evals.published_bpd
    published = '-' if published is None else f'{published:.2f}'
    yield f'| `{name}` | {parameter_count(config):,} | {published} |'


def parameter_count(config: ml_collections.ConfigDict) -> int:
  """Counts the parameters of a config's model from shapes alone."""
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
    with jax.default_matmul_precision(config.train.precision):
      yield _smallest_slice(name, config, slices)


def _smallest_slice(name: str, config: ml_collections.ConfigDict, slices: list[str]) -> str:
  """Returns the table row with the first of `slices` on which a config fits."""
  from hvae_tpu.planning import chips, plan, planner

  batch, most, last = config.train.batch_size, 0.0, None
  for topology in slices:
    limit = MARGIN * chips.chip_of(topology).hbm
    if last and last.peak_on(len(chips.describe(topology))) > limit:
      continue
    try:
      slice_plan = planner.make_plan(config, topology, ('train',))
    except UserError as error:
      if 'must be a positive multiple' in str(error):
        continue  # this slice has more devices than examples
      raise
    last = slice_plan.analyses['train']
    compiled = last.compiled
    most = compiled.peak
    if slice_plan.fits:
      least, planned = slice_plan.days()
      return _row(
        f'`{name}`',
        topology,
        batch,
        f'{batch / last.devices:g}',
        slice_plan.settings['remat'],
        f'{compiled.peak / plan.GIB:.1f}',
        f'{least:.2g}' if least else '-',  # '-': only the data set tells the number of steps
        f'{planned:.2g}' if planned else '-',
      )
  return _row(f'`{name}`', 'none of these', batch, '', '', f'> {most / plan.GIB:.1f}', '', '')


def _row(*cells: Any) -> str:
  return f'| {" | ".join(str(cell) for cell in cells)} |'


if __name__ == '__main__':
  sys.exit(main(sys.argv))
