"""Checkpoints of the PyTorch form of Efficient-VDVAE: state dicts in a file of `torch.save`.

The published files have no extension. Such a file is a zip archive itself, which is not to be
unpacked. The `model` section must be that of the run's own `hparams-*.cfg`:
efficient_vdvae_cfg.py.
"""

from hvae_tpu.errors import UserError
from hvae_tpu.importers import efficient_vdvae_table as table
from hvae_tpu.importers import tables, trees
from hvae_tpu.importers.tables import Entry
from hvae_tpu.importers.trees import Contents
from hvae_tpu.models.efficient_vdvae import EfficientVDVAE
from hvae_tpu.models.protocol import Batch
from hvae_tpu.storage.tensor_files import Container

SETTINGS = {'name': 'efficient_vdvae'}
STATE, AVERAGE = 'model_state_dict', 'ema_model_state_dict'
NAMES = table.Names(
  input_conv='bottom_up.input_conv',
  output_conv='top_down.output_conv',
  up='bottom_up.levels_up.{}.{}',
  pooled='bottom_up.levels_up_downsample.{}',
  down='top_down.levels_down.{}.{}',
  unpooled='top_down.levels_down_upsample.{}',
  convs=lambda k: f'convs.{2 * k + 1}',  # activations stand between them
  residual_block='residual_block.{}',
  prior_net='prior_net.0',
  posterior_net='posterior_net.0',
  skip_projection='skip_projection',
  prior_projection='prior_layer.projection',
  posterior_projection='posterior_layer.projection',
  z_projection='z_projection',
  pool='pool.ops.0',
  unpool='unpool.ops.0',
  scale_bias='unpool.scale_bias',
  start='top_down.trainable_h',
  kernel_leaf='weight',
  join='.',
  kernel=tables.CONV,
  map=tables.MAP,
)


def contents(held: Container) -> Contents:
  """The state dict and its average; a file of a bare state dict will do."""
  tree, average = held.tree, None
  if isinstance(tree, dict) and AVERAGE in tree:
    average = tree[AVERAGE]
    tree = {key: value for key, value in tree.items() if key != AVERAGE}
    if STATE not in tree:
      raise UserError(f'it has {AVERAGE} but no {STATE}; use the whole published file')
  tree, aside = trees.unwrap(tree, (STATE,))
  fields = {'params': trees.flatten(tree, '.')}
  if average is not None:
    fields['ema_params'] = trees.flatten(average, '.')
  return Contents(fields, aside, trees.step_of(held.tree, 'global_step'))


def example(model: EfficientVDVAE, found: Contents) -> Batch:
  """Shapes of a batch, which the file does not tell."""
  return table.example(model)


def field_tables(model: EfficientVDVAE, batch: Batch) -> dict[str, list[Entry]]:
  """The model has parameters only."""
  return {'params': entries(model)}


def entries(model: EfficientVDVAE) -> list[Entry]:
  """All tensors of the state dict. Output channels are ordered as ours."""
  return table.entries(model, NAMES, lambda layout: layout)
