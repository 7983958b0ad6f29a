"""Checkpoints of mgp123/nvae, a second public implementation: `.checkpoint` and `.model` files."""

from hvae_tpu.importers import nvae_table as table
from hvae_tpu.importers import tables, trees
from hvae_tpu.importers.nvae_official import divided
from hvae_tpu.importers.nvae_table import Names, Place, norm, squeeze_excite
from hvae_tpu.importers.tables import Entry, Row
from hvae_tpu.importers.trees import Contents
from hvae_tpu.models.nvae import NVAE, cells
from hvae_tpu.models.protocol import Batch
from hvae_tpu.storage.tensor_files import Container

SETTINGS = {'name': 'nvae', 'weight_norm': 'gain', 'arch_instance': 'res_mbconv'}


def contents(held: Container) -> Contents:
  """Parameters and statistics of the state dict; a file of a bare state dict will do."""
  tree, aside = trees.unwrap(held.tree, ('state_dict',))
  return divided(trees.flatten(tree, '.'), aside, {})


def example(model: NVAE, found: Contents) -> Batch:
  """Shapes of a batch, which the file does not tell."""
  return table.example(model)


def field_tables(model: NVAE, batch: Batch) -> dict[str, list[Entry]]:
  """Parameters and running statistics."""
  return table.entries(model, names(model))


def names(model: NVAE) -> Names:
  """Names of a model's parts, which depend on how many there are of each."""
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
    cell=_cell,
    gain=('gain', 'weight_g'),
    kernel='weight_v',
    prior_layout=tables.MAP,
  )


def _cell(form: Names, place: Place, ops: tuple[str, ...], stride: int) -> list[Row]:
  rows = []
  plain = lambda place: form.conv(place, norm=False)
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
    rows += form.conv(inner.inner(name, f'.model.{key}'), norm=False, bias=False)
  return rows + squeeze_excite(place.inner('se', '.model.10'), '.model.0', '.model.2')
