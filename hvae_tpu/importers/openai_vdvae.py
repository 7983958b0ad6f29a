"""Checkpoints of the original VDVAE release (openai/vdvae): PyTorch state dicts.

Their models are `VDVAE` with the likelihood, the activation and the initialisation it has by
default; FFHQ-256 with `num_bits=5`.
"""

from collections.abc import Mapping

import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.importers import tables, trees, vdvae_table
from hvae_tpu.importers.tables import Entry
from hvae_tpu.importers.trees import Contents
from hvae_tpu.models.protocol import Batch
from hvae_tpu.models.vdvae import VDVAE
from hvae_tpu.storage.tensor_files import Container

SETTINGS = {'name': 'vdvae', 'likelihood': 'dmol_torch', 'gelu_approximate': False}
NAMES = vdvae_table.Names(
  in_conv='encoder.in_conv',
  out_conv='decoder.out_net.out_conv',
  encoder_block='encoder.enc_blocks.{}',
  decoder_block='decoder.dec_blocks.{}',
  convs=('c1', 'c2', 'c3', 'c4'),
  start='decoder.bias_xs.{}',
  gain='decoder.gain',
  bias='decoder.bias',
  kernel_leaf='weight',
  bias_leaf='bias',
  join='.',
  kernel=tables.CONV,
  channels=tables.CHANNELS,
  map=tables.MAP,
)


def rename(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Names without the prefix that data-parallel training leaves on trained (not averaged) ones."""
  return {key.removeprefix('module.'): tensor for key, tensor in tensors.items()}


def contents(held: Container) -> Contents:
  """The state dict of a file; derived programs wrap it."""
  tree, aside = trees.unwrap(held.tree, ('model', 'state_dict', 'params'))
  found = trees.flatten(tree, '.')
  renamed = rename(found)
  if len(renamed) != len(found):
    raise UserError(
      f'{len(found) - len(renamed)} names of the state dict occur with and without the prefix '
      f"'module.'; save one state dict"
    )
  return Contents({'params': renamed}, aside, {})


def example(model: VDVAE, found: Contents) -> Batch:
  """Shapes of a batch, which the file does not tell."""
  return vdvae_table.example(model)


def field_tables(model: VDVAE, batch: Batch) -> dict[str, list[Entry]]:
  """The model has parameters only."""
  return {'params': entries(model)}


def entries(model: VDVAE) -> list[Entry]:
  """All tensors of the state dict, in its order."""
  return vdvae_table.entries(model, NAMES)
