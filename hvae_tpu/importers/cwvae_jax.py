"""Checkpoints of the JAX port of the Clockwork VAE: Flax msgpack of (optimizer, random key)."""

import jax
import jax.numpy as jnp

from hvae_tpu.importers import tables, trees
from hvae_tpu.importers.tables import Entry, Path, Row
from hvae_tpu.importers.trees import Contents
from hvae_tpu.models.cwvae import CWVAE
from hvae_tpu.models.protocol import Batch
from hvae_tpu.storage.tensor_files import Container

SETTINGS = {'name': 'cwvae'}
GATES = ('r', 'z', 'n')  # reset, update, new: how ours are stacked
# Ours -> the port's, inside `RSSMPrior_0` and `RSSMPosterior_0`.
LAYERS = {
  ('{}_input',): 'Dense_0',
  ('{}_hidden',): 'Dense_1',
  ('{}_head', 'mean'): 'Dense_2',
  ('{}_head', 'std'): 'Dense_3',
}


def contents(held: Container) -> Contents:
  """The optimizer has the parameters as `target`; Flax calls the members of a pair '0' and '1'."""
  tree, aside = trees.unwrap(held.tree, ('0', 'target', 'optimizer', 'params'))
  step = trees.step_of(held.tree, '0', 'state', 'step')
  return Contents({'params': trees.flatten(tree, '/')}, aside, step)


def example(model: CWVAE, found: Contents) -> Batch:
  """Shapes of a batch of one frame, since the file does not tell any."""
  return _frame(model)


def field_tables(model: CWVAE, batch: Batch) -> dict[str, list[Entry]]:
  """The model has parameters only."""
  return {'params': entries(model)}


def _frame(model: CWVAE) -> Batch:
  shape = (1, 1, model.image_size, model.image_size, model.image_channels)
  return {'video': jax.ShapeDtypeStruct(shape, jnp.uint8)}


def entries(model: CWVAE) -> list[Entry]:
  """One entry per array."""
  rows = []
  for i in range(4):
    rows += _layer(('encoder', f'conv_{i}'), f'encoder/Conv_{i}')
  depth = len(model.dense_sizes)
  for level in range(1, model.levels):
    for i in range(depth):
      number = (level - 1) * depth + i
      rows += _layer((f'embed_{level - 1}_{i}',), f'encoder/Dense_{number}')
  for level in range(model.levels):
    path, name = (f'cells_{level}',), f'model/RSSMCell_{level}'
    for side in ('prior', 'posterior'):
      for ours, theirs in LAYERS.items():
        key = f'{name}/RSSM{side.capitalize()}_0/{theirs}'
        rows += _layer((*path, *(part.format(side) for part in ours)), key)
    rows += _gru((*path, 'gru'), f'{name}/RSSMPrior_0/GRUCell_0')
  rows += _layer(('decoder', 'dense'), 'decoder/Dense_0')
  for i in range(4):
    rows += _layer(('decoder', f'deconv_{i}'), f'decoder/ConvTranspose_{i}')
  params, _ = jax.eval_shape(model.init, jax.random.key(0), _frame(model))
  return tables.complete(rows, params)


def _layer(path: Path, key: str) -> list[Row]:
  return [Row((*path, leaf), None, f'{key}/{leaf}', tables.SAME) for leaf in ('kernel', 'bias')]


def _gru(path: Path, key: str) -> list[Row]:
  rows = [Row((*path, 'new_bias'), None, f'{key}/hn/bias', tables.SAME)]
  for index, gate in enumerate(GATES):
    rows += [
      Row((*path, 'input_kernel'), index, f'{key}/i{gate}/kernel', tables.SAME),
      Row((*path, 'input_bias'), index, f'{key}/i{gate}/bias', tables.SAME),
      Row((*path, 'recurrent_kernel'), index, f'{key}/h{gate}/kernel', tables.SAME),
    ]
  return rows
