"""Checkpoints of the JAX port of the Clockwork VAE: Flax msgpack of (optimizer, random key)."""

from hvae_tpu.importers import cwvae_table, trees
from hvae_tpu.importers.containers import Container
from hvae_tpu.importers.tables import Entry
from hvae_tpu.importers.trees import Contents
from hvae_tpu.models.cwvae import CWVAE
from hvae_tpu.models.protocol import Batch

SETTINGS = {'name': 'cwvae'}


def contents(held: Container) -> Contents:
  """The optimizer has the parameters as `target`; Flax calls the members of a pair '0' and '1'."""
  tree, aside = trees.unwrap(held.tree, ('0', 'target', 'optimizer', 'params'))
  return Contents({'params': trees.flatten(tree, '/')}, aside, {})


def example(model: CWVAE, found: Contents) -> Batch:
  """Shapes of a batch, which the file does not tell."""
  return cwvae_table.example(model)


def field_tables(model: CWVAE, batch: Batch) -> dict[str, list[Entry]]:
  """The model has parameters only."""
  return {'params': cwvae_table.entries(model)}
