"""Parameter trees of the JAX port of VDVAE (j-towns/vdvae-jax), names joined by '/'.

Its models are `VDVAE` with `likelihood='dmol_exact'`, `gelu_approximate=True` and
`kernel_init='lecun'`. In its `dec_blocks` a plain item `R` mixes in the map of resolution 1, so it
is `Rm1` in ours; `RxN` means the same in both.
"""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util
import numpy as np

from hvae_tpu.importers import tables, trees, vdvae_table
from hvae_tpu.importers.tables import Entry
from hvae_tpu.importers.trees import Contents
from hvae_tpu.models.protocol import Batch
from hvae_tpu.models.vdvae import VDVAE
from hvae_tpu.storage.tensor_files import Container

SETTINGS = {'name': 'vdvae', 'likelihood': 'dmol_exact', 'gelu_approximate': True}
NAMES = vdvae_table.Names(
  in_conv='encoder/Conv_0',
  out_conv='decoder/out_net/out_conv',
  encoder_block='encoder/Block_{}',
  decoder_block='decoder/dec_blocks_{}',
  convs=('Conv_0', 'Conv_1', 'Conv_2', 'Conv_3'),
  start='decoder/bias_xs_{}',
  gain='decoder/gain',
  bias='decoder/bias',
  kernel_leaf='kernel',
  bias_leaf='bias',
  join='/',
  kernel=tables.SAME,
  channels=tables.SAME,
  map=tables.SAME,
)


def rename(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """A nested tree with its names joined; names that are joined already stay as they are."""
  return traverse_util.flatten_dict(dict(tensors), sep='/')


def contents(held: Container) -> Contents:
  """The port saves the pair (optimizer, epoch), whose optimizer has the parameters as `target`.

  Flax calls the members of a pair '0' and '1'.
  """
  tree, aside = trees.unwrap(held.tree, ('0', 'target', 'optimizer', 'params'))
  step = trees.step_of(held.tree, '0', 'state', 'step')
  return Contents({'params': trees.flatten(tree, '/')}, aside, step)


def example(model: VDVAE, found: Contents) -> Batch:
  """Shapes of a batch, which the file does not tell."""
  return vdvae_table.example(model)


def field_tables(model: VDVAE, batch: Batch) -> dict[str, list[Entry]]:
  """The model has parameters only."""
  return {'params': entries(model)}


def entries(model: VDVAE) -> list[Entry]:
  """All leaves of the tree."""
  return vdvae_table.entries(model, NAMES)
