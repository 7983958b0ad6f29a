"""Data: ArrayRecord files, read through Grain as batches of uint8 arrays.

Every folder has a data card, which describes its contents. Training batch n is a function of
(seed, n), the same for any number of processes and workers. So a resumed run starts the pipeline at
its step instead of saving an iterator. `data_prep` writes the records: the raw bytes of the fields,
little-endian, in the order of the card.
"""

from hvae_tpu.data.batches import (
  batch_spec,
  check_transforms,
  eval_batches,
  num_examples,
  train_batches,
  train_indices,
  train_spec,
)
from hvae_tpu.data.datasets import Dataset, check_required, open_dataset
from hvae_tpu.data.items import items_of
from hvae_tpu.data.transforms import TRANSFORMS

__all__ = [
  'TRANSFORMS',
  'Dataset',
  'batch_spec',
  'check_required',
  'check_transforms',
  'eval_batches',
  'items_of',
  'num_examples',
  'open_dataset',
  'train_batches',
  'train_indices',
  'train_spec',
]
