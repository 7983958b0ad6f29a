"""Checkpoints of NVAE: of NVlabs/NVAE, and of mgp123/nvae, a second public implementation.

Both are PyTorch files with a state dict. Those of NVlabs also hold the flags of the run, and number
the modules of a tower in order of construction.
"""

import functools

from hvae_tpu.errors import UserError
from hvae_tpu.importers import tables, trees
from hvae_tpu.importers.formats import Contents, Format, Meta
from hvae_tpu.importers.nvae import table
from hvae_tpu.importers.nvae.table import Names, Place, norm, squeeze_excite
from hvae_tpu.importers.tables import Row
from hvae_tpu.models.nvae import NVAE, cells
from hvae_tpu.storage.tensor_files import Container

# Counters that nothing reads, and copies of the kernels that some versions store.
DERIVED = ('num_batches_tracked', 'weight_normalized')
BATCH_NORMS = {'bn_swish': '.bn_act', 'bn_elu': '.bn.bn'}
# Flag -> our field, for flags that the shapes of the arrays do not tell.
FLAGS = {
  'num_latent_scales': 'num_latent_scales',
  'num_groups_per_scale': 'num_groups_per_scale',
  'min_groups_per_scale': 'min_groups_per_scale',
  'num_latent_per_group': 'zdim',
  'num_channels_enc': 'num_channels_enc',
  'num_channels_dec': 'num_channels_dec',
  'num_nf': 'num_flows',
  'num_x_bits': 'num_bits',
  'res_dist': 'residual_posterior',
  'arch_instance': 'arch_instance',
}


def _contents(container: Container) -> Contents:
  """Reads a state dict, bare or with other things beside it, and the flags of the run."""
  tree, aside = trees.unwrap(container.tree, ('state_dict',))
  flags = container.tree.get('args') if isinstance(container.tree, dict) else None
  meta = {'flags': flags} if isinstance(flags, dict) else {}
  return split_statistics(trees.flatten(tree, '.'), aside, meta)


def split_statistics(tensors: dict, aside: dict[str, int], meta: dict) -> Contents:
  """Splits a state dict into parameters and statistics; sets derived arrays aside."""
  fields, aside = {'params': {}, 'model_state': {}}, dict(aside)
  for key, tensor in tensors.items():
    leaf = key.rpartition('.')[2]
    if leaf in DERIVED:
      aside[leaf] = aside.get(leaf, 0) + 1
    else:
      field = 'model_state' if leaf in table.STATISTICS.values() else 'params'
      fields[field][key] = tensor
  return Contents(fields, aside, meta)


def _check_flags(model: NVAE, meta: Meta) -> None:
  """Raises UserError if the run had other flags."""
  flags = meta.get('flags', {})
  wrong = [
    f'config.model.{field}={getattr(model, field)} (--{flag} was {flags[flag]})'
    for flag, field in FLAGS.items()
    if flag in flags and flags[flag] != getattr(model, field)
  ]
  if wrong:
    raise UserError(
      f'the flags in the file differ from the config: {", ".join(wrong)}; set the fields to them'
    )


def nvlabs_names(model: NVAE) -> Names:
  """Returns the names of a model's parts, which depend on how many there are of each."""
  towers = _Towers(model)
  return Names(
    prior='prior_ftr0',
    stem='stem',
    enc_top='enc0.1',
    image='image_conditional.1',
    stem_decoder='stem_decoder',
    pre=lambda b, i: f'pre_process.{b * model.num_preprocess_cells + i}',
    post=lambda b, i: f'post_process.{b * model.num_postprocess_cells + i}',
    enc_cell=lambda s, k, i: f'enc_tower.{towers.enc["cell", s, k, i]}',
    down=lambda s: f'enc_tower.{towers.enc["down", s]}',
    up=lambda g: f'dec_tower.{towers.dec["up", g]}',
    dec_cell=lambda g, i: f'dec_tower.{towers.dec["cell", g, i]}',
    enc_combiner=lambda g: f'enc_tower.{towers.combiners[-g]}.conv',
    dec_combiner=lambda g: f'dec_tower.{towers.dec["combiner", g]}.conv',
    enc_sampler=lambda g: f'enc_sampler.{g}',
    dec_sampler=lambda g: f'dec_sampler.{g - 1}.1',
    flow=lambda g, n, mirrored: f'nf_cells.{g * model.num_flows + n}.cell{1 + mirrored}',
    flow_convs={'dense': '.conv.convz.0', 'depthwise': '.conv.convz.2', 'mean': '.mu.conv_0'},
    cell=functools.partial(_nvlabs_cell, model.se != 'none'),
    gain=('log_gain', 'log_weight_norm'),
    kernel='weight',
    prior_layout=table.SINGLE_MAP,
  )


class _Towers:
  """Places of the modules in the two flat lists.

  Attributes:
    enc, dec: (kind, numbers) -> place.
    combiners: places of the encoder's combiners; top-down groups take them from the last on.
  """

  def __init__(self, model: NVAE):
    self.combiners = []
    enc, runs = [], model.bottom_up_runs
    for run in runs:
      enc += [('down', run.scale)] if run.scale else []
      for k in range(run.count):
        enc += [('cell', run.scale, k, i) for i in range(model.num_cells_enc)]
        if run is not runs[-1] or k < run.count - 1:
          self.combiners.append(len(enc))
          enc.append(('combiner', run.scale, k))
    dec, group = [('combiner', 0)], 1
    for j, run in enumerate(model.top_down_runs):
      dec += [('up', group)] if j else []
      for _ in range(run.count):
        dec += [*(('cell', group, i) for i in range(model.num_cells_dec)), ('combiner', group)]
        group += 1
    self.enc = {key: place for place, key in enumerate(enc)}
    self.dec = {key: place for place, key in enumerate(dec)}


def _nvlabs_cell(
  has_se: bool, names: Names, place: Place, ops: tuple[str, ...], stride: int
) -> list[Row]:
  rows = squeeze_excite(place.inner('se', '.se'), '.se.0', '.se.2') if has_se else []
  if stride == 2:
    for i in range(1, 5):
      rows += names.conv(place.inner('skip', '.skip').inner(f'conv_{i}', f'.conv_{i}'))
  elif stride == cells.UP:
    rows += names.conv(place.inner('skip', '.skip.1'), bias=False)
  for k, name in enumerate(ops):
    op, inner = cells.OPS[name], place.inner(f'op_{k}', f'._ops.{k}')
    if isinstance(op, cells.Residual):
      if op.activation in BATCH_NORMS:
        rows += norm(inner.inner('norm', BATCH_NORMS[op.activation]))
      rows += names.conv(inner.inner('conv', '.conv_0'))
    else:
      rows += _inverted(names, inner, 1 if k == 0 and stride == cells.UP else 0)
  return rows


def _inverted(names: Names, place: Place, first: int) -> list[Row]:
  """Returns the rows of an inverted residual; `first` modules stand before its first norm."""
  plain = lambda name, key: names.conv(place.inner(name, f'.conv.{key}'), norm=False, bias=False)
  return [
    *norm(place.inner('norm_0', f'.conv.{first}.bn')),
    *plain('expand', f'{first + 1}.conv.0'),
    *norm(place.inner('norm_1', f'.conv.{first + 1}.conv.1')),
    *plain('spatial', f'{first + 2}.conv.0'),
    *norm(place.inner('norm_2', f'.conv.{first + 2}.conv.1')),
    *plain('project', f'{first + 3}'),
    *norm(place.inner('norm_3', f'.conv.{first + 4}.bn')),
  ]


def mgp123_names(model: NVAE) -> Names:
  """Returns the names of a model's parts, which depend on how many there are of each."""
  # A first cell that halves the side belongs to the split that follows it.
  split = lambda s, k: f'encoder_tower.model.enc_block_{s + 1}.model.split_{k + 1}.model'
  mixer = lambda part, g: f'mixer.{part}.{g}'
  return Names(
    prior='decoder_constant',
    stem='initial_transform',
    enc_top='mixer.encoder_mixer.0.model.1',
    image='to_distribution_conv.1',
    stem_decoder='mixer.decoder_mixer.0.model',
    pre=lambda b, i: f'preprocess.model.{b * model.num_preprocess_cells + i + 1}.model',
    post=lambda b, i: f'postprocess.model.{b * model.num_postprocess_cells + i + 1}.model',
    enc_cell=lambda s, k, i: f'{split(s, k)}.cell_encoder{i + 1}',
    down=lambda s: f'{split(s, 0)}.down',
    up=lambda g: f'decoder_tower.blocks.{g - 1}.model.cell_decoder_upsample',
    dec_cell=lambda g, i: f'decoder_tower.blocks.{g - 1}.model.cell_decoder{i + 1}',
    enc_combiner=lambda g: mixer('encoder_mixer', g) + '.model',
    dec_combiner=lambda g: mixer('decoder_mixer', g) + '.model',
    enc_sampler=lambda g: mixer('encoder_sampler', g),
    dec_sampler=lambda g: mixer('decoder_sampler', g) + '.1',
    flow=lambda g, n, mirrored: mixer('normal_flow_block', g) + f'.model.{2 * n + mirrored}',
    flow_convs={'dense': '.model.0', 'depthwise': '.model.2', 'mean': '.model.5'},
    cell=_mgp123_cell,
    gain=('gain', 'weight_g'),
    kernel='weight_v',
    prior_layout=tables.MAP,
  )


def _mgp123_cell(names: Names, place: Place, ops: tuple[str, ...], stride: int) -> list[Row]:
  rows = []
  plain = lambda place: names.conv(place, norm=False)
  if stride == 2:
    for i in range(1, 5):
      rows += plain(place.inner('skip', '.skip.model.skip down').inner(f'conv_{i}', f'.conv_{i}'))
  elif stride == cells.UP:
    rows += plain(place.inner('skip', '.skip.model.skip up.model'))
  if len(ops) == 2:  # two convolutions
    for k in range(2):
      inner = place.inner(f'op_{k}', '')
      rows += norm(inner.inner('norm', f'.model.{3 * k}'))
      rows += plain(inner.inner('conv', f'.model.{3 * k + 2}'))
    return rows + squeeze_excite(place.inner('se', '.model.6'), '.model.0', '.model.2')
  inner = place.inner('op_0', '')
  for k, key in enumerate((1, 3, 6, 9)):
    rows += norm(inner.inner(f'norm_{k}', f'.model.{key}'))
  for name, key in (('expand', 2), ('spatial', 5), ('project', 8)):
    rows += names.conv(inner.inner(name, f'.model.{key}'), norm=False, bias=False)
  return rows + squeeze_excite(place.inner('se', '.model.10'), '.model.0', '.model.2')


NVLABS = Format(
  settings={'name': 'nvae', 'weight_norm': 'log', 'input_centering': True},
  contents=_contents,
  rows=lambda model: table.rows_of(model, nvlabs_names(model)),
  check=_check_flags,
)
MGP123 = Format(
  settings={'name': 'nvae', 'weight_norm': 'gain', 'arch_instance': 'res_mbconv'},
  contents=_contents,
  rows=lambda model: table.rows_of(model, mgp123_names(model)),
)
