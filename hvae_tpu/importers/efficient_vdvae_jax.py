"""Checkpoints of the JAX form of Efficient-VDVAE: Flax msgpack of the train state.

A file holds `params`, `ema_params`, the optimizer and the step. The `model` section must be that of
the run's own `hparams-*.cfg`: efficient_vdvae_cfg.py.
"""

import functools

from hvae_tpu.importers import efficient_vdvae_table as table
from hvae_tpu.importers import tables, trees
from hvae_tpu.importers.tables import Entry
from hvae_tpu.importers.trees import Contents
from hvae_tpu.models.efficient_vdvae import EfficientVDVAE
from hvae_tpu.models.protocol import Batch
from hvae_tpu.storage.tensor_files import Container

SETTINGS = {'name': 'efficient_vdvae'}
NAMES = table.Names(
  input_conv='bottom_up/input_conv/conv',
  output_conv='top_down/output_conv/conv',
  up='bottom_up/block_up_level_{}_{}',
  pooled='bottom_up/block_up_level_{}_downsample',
  down='top_down/block_down_level_{}_{}',
  unpooled='top_down/block_down_level_{}_upsample',
  convs='conv_{}/conv'.format,
  residual_block='residual_block_{}',
  prior_net='prior_net',
  posterior_net='posterior_net',
  skip_projection='skip_projection/conv',
  prior_projection='prior_gaussian_layer/projection/conv',
  posterior_projection='posterior_gaussian_layer/projection/conv',
  z_projection='z_projection/z_projection/conv',
  pool='pooling_layer/conv/conv',
  unpool='unpooling_layer/conv/conv',
  scale_bias='unpooling_layer/scale_bias',
  start='top_down/trainable_h',
  kernel_leaf='kernel',
  join='/',
  kernel=tables.SAME,
  map=tables.BATCHED,
)


def contents(held: Container) -> Contents:
  """The parameters and their average; a file of bare parameters will do."""
  tree, average = held.tree, None
  if isinstance(tree, dict) and isinstance(tree.get('ema_params'), dict):
    average = tree['ema_params']
    tree = {key: value for key, value in tree.items() if key != 'ema_params'}
  tree, aside = trees.unwrap(tree, ('params',))
  fields = {'params': trees.flatten(tree, '/')}
  if average is not None:
    fields['ema_params'] = trees.flatten(average, '/')
  return Contents(fields, aside, trees.step_of(held.tree, 'step'))


def example(model: EfficientVDVAE, found: Contents) -> Batch:
  """Shapes of a batch, which the file does not tell."""
  return table.example(model)


def field_tables(model: EfficientVDVAE, batch: Batch) -> dict[str, list[Entry]]:
  """The model has parameters only."""
  return {'params': entries(model)}


def entries(model: EfficientVDVAE) -> list[Entry]:
  """All leaves of the tree."""
  output = lambda layout: layout
  if model.likelihood != 'bernoulli':
    order = table.channels_by_colour(model.num_mixtures)
    output = functools.partial(table.reordered, order=order)
  return table.entries(model, NAMES, output)
