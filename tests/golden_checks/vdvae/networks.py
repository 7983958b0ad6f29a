"""Tolerances and models, for all VDVAE checks."""

from collections.abc import Mapping
import functools
import importlib
from typing import Any

import numpy as np

from hvae_tpu.importers import vdvae
from hvae_tpu.importers.tables import Entry
from hvae_tpu.models.vdvae import VDVAE
from tests.support.golden_files import Tolerance

GRADIENT = Tolerance(1e-3, 2e-6, of_max=1e-3)
PREPROCESSING = Tolerance(0, 1e-6)

# The references' names of data sets -> our config files, which know how their pixels are scaled.
DATASETS = {
  'cifar10': 'cifar10',
  'imagenet32': 'imagenet32',
  'imagenet64': 'imagenet64',
  'ffhq_256': 'ffhq256',
  'ffhq_1024': 'ffhq1024',
}
SCALING = ('input_mean', 'input_std', 'num_bits')
# The smallest network, for tests of the likelihood alone.
ONE_BLOCK = dict(enc_blocks='32x1', dec_blocks='32x1')
SAME_NAMES = (
  'image_size',
  'image_channels',
  'width',
  'custom_width_str',
  'zdim',
  'bottleneck_multiple',
  'enc_blocks',
  'dec_blocks',
  'no_bias_above',
  'num_mixtures',
)


def scaling(dataset: str) -> dict[str, Any]:
  """Returns fields of `VDVAE`: how images become inputs and targets."""
  section = importlib.import_module(f'configs.{DATASETS[dataset]}').get_config().model
  return {name: section[name] for name in SCALING}


def model_fields(config: Mapping[str, Any]) -> dict[str, Any]:
  """Fields of `VDVAE` from the references' names.

  Loops are not unrolled: the runs are short, and a loop compiles faster than its copies.
  """
  same = {name: config[name] for name in SAME_NAMES if name in config}
  return {**same, **scaling(config['dataset']), 'unroll': '1'}


def release_model(config: Mapping[str, Any]) -> VDVAE:
  return VDVAE(**model_fields(config), sample_rounding='truncate')


@functools.cache
def release_entries(model: VDVAE) -> list[Entry]:
  return vdvae.OPENAI.entries(model)


def with_zeros(
  stored: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray], norm: Any
) -> dict[str, np.ndarray]:
  """Returns stored gradients, with zeros for parameters that have none in the reference.

  A file may also hold a part of the gradients: they are all there if their norm is `norm`.
  """
  total = np.sqrt(sum(np.square(value, dtype=np.float64).sum() for value in stored.values()))
  if norm is None or not np.isclose(total, norm, rtol=1e-4):
    return dict(stored)
  return {key: np.zeros_like(value) for key, value in ours.items()} | dict(stored)
