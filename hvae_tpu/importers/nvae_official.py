"""Checkpoints of NVlabs/NVAE: PyTorch files with the state dict and the flags of the run.

The modules of a tower are numbered in order of construction.
"""

import functools

from hvae_tpu.errors import UserError
from hvae_tpu.importers import nvae_table as table
from hvae_tpu.importers import trees
from hvae_tpu.importers.nvae_table import Names, Place, norm, squeeze_excite
from hvae_tpu.importers.tables import Entry, Row
from hvae_tpu.importers.trees import Contents
from hvae_tpu.models.nvae import NVAE, cells
from hvae_tpu.models.protocol import Batch
from hvae_tpu.storage.tensor_files import Container

SETTINGS = {'name': 'nvae', 'weight_norm': 'log', 'input_centering': True}
BATCH_NORMS = {'bn_swish': '.bn_act', 'bn_elu': '.bn.bn'}
# flag -> field of ours, of the flags that the shapes of the arrays do not tell.
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


def contents(held: Container) -> Contents:
  """Parameters and statistics of the state dict; a file of a bare state dict will do."""
  tree, aside = trees.unwrap(held.tree, ('state_dict',))
  flags = held.tree.get('args') if isinstance(held.tree, dict) else None
  meta = {'flags': flags} if isinstance(flags, dict) else {}
  return divided(trees.flatten(tree, '.'), aside, meta)


def divided(tensors: dict, aside: dict[str, int], meta: dict) -> Contents:
  """A state dict as parameters and running statistics; what follows from others is set aside."""
  fields, aside = {'params': {}, 'model_state': {}}, dict(aside)
  for key, tensor in tensors.items():
    leaf = key.rpartition('.')[2]
    if leaf in table.DERIVED:
      aside[leaf] = aside.get(leaf, 0) + 1
    else:
      field = 'model_state' if leaf in table.STATISTICS.values() else 'params'
      fields[field][key] = tensor
  return Contents(fields, aside, meta)


def example(model: NVAE, found: Contents) -> Batch:
  """Shapes of a batch, which the file does not tell; compares the flags with the model.

  Raises:
    UserError: the run had other flags.
  """
  flags = found.meta.get('flags', {})
  wrong = [
    f'config.model.{field}={getattr(model, field)} (--{flag} was {flags[flag]})'
    for flag, field in FLAGS.items()
    if flag in flags and flags[flag] != getattr(model, field)
  ]
  if wrong:
    raise UserError(
      f'the flags in the file differ from the config: {", ".join(wrong)}; set the fields to them'
    )
  return table.example(model)


def field_tables(model: NVAE, batch: Batch) -> dict[str, list[Entry]]:
  """Parameters and running statistics."""
  return table.entries(model, names(model))


def names(model: NVAE) -> Names:
  """Names of a model's parts, which depend on how many there are of each."""
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
    cell=functools.partial(_cell, model.se != 'none'),
    gain=('log_gain', 'log_weight_norm'),
    kernel='weight',
    prior_layout=table.SINGLE_MAP,
  )


class _Towers:
  """Places of the modules in the two flat lists.

  Attributes:
    enc, dec: (what, numbers) -> place.
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
    self.enc = {what: place for place, what in enumerate(enc)}
    self.dec = {what: place for place, what in enumerate(dec)}


def _cell(has_se: bool, form: Names, place: Place, ops: tuple[str, ...], stride: int) -> list[Row]:
  rows = squeeze_excite(place.inner('se', '.se'), '.se.0', '.se.2') if has_se else []
  if stride == 2:
    for i in range(1, 5):
      rows += form.conv(place.inner('skip', '.skip').inner(f'conv_{i}', f'.conv_{i}'))
  elif stride == cells.UP:
    rows += form.conv(place.inner('skip', '.skip.1'), bias=False)
  for k, name in enumerate(ops):
    op, inner = cells.OPS[name], place.inner(f'op_{k}', f'._ops.{k}')
    if isinstance(op, cells.Residual):
      if op.activation in BATCH_NORMS:
        rows += norm(inner.inner('norm', BATCH_NORMS[op.activation]))
      rows += form.conv(inner.inner('conv', '.conv_0'))
    else:
      rows += _inverted(form, inner, 1 if k == 0 and stride == cells.UP else 0)
  return rows


def _inverted(form: Names, place: Place, first: int) -> list[Row]:
  """`first` counts what stands before the first batch normalisation."""
  plain = lambda name, key: form.conv(place.inner(name, f'.conv.{key}'), norm=False, bias=False)
  return [
    *norm(place.inner('norm_0', f'.conv.{first}.bn')),
    *plain('expand', f'{first + 1}.conv.0'),
    *norm(place.inner('norm_1', f'.conv.{first + 1}.conv.1')),
    *plain('spatial', f'{first + 2}.conv.0'),
    *norm(place.inner('norm_2', f'.conv.{first + 2}.conv.1')),
    *plain('project', f'{first + 3}'),
    *norm(place.inner('norm_3', f'.conv.{first + 4}.bn')),
  ]
