"""Tolerances, models and what is seen inside a network, for all VDVAE checks."""

from collections.abc import Iterator, Mapping
import contextlib
import functools
import importlib
from typing import Any
from unittest import mock

import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu import layers
from hvae_tpu.importers import openai_vdvae
from hvae_tpu.importers.tables import Entry
from hvae_tpu.models.vdvae import VDVAE
from hvae_tpu.models.vdvae.network import Encoder, Net
from tests.golden_files import Tolerance

# Float32 against float32 on another framework. Tight on purpose: the weights are small, and the
# tanh GELU in place of the erf form moves activations by only 2e-6 to 1e-5.
LOSS = Tolerance(1e-5, 1e-5)  # also the two parts of it, and bits/dim
LEVEL_KL = Tolerance(1e-6, 2e-5)  # nats
FEATURES = Tolerance(0, 2e-6)
GRADIENT = Tolerance(1e-3, 2e-6, of_max=1e-3)
GRAD_NORM = Tolerance(1e-4, 0)
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
  """How images become inputs and targets: fields of `VDVAE`."""
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
  return openai_vdvae.entries(model)


@contextlib.contextmanager
def watched() -> Iterator[list]:
  """Yields a list; every run of the network appends what it returned and kept inside."""
  seen, apply = [], Net.apply
  is_encoder = lambda module, _: isinstance(module, Encoder)

  def apply_and_keep(net, *args, **kwargs):
    result, variables = apply(
      net, *args, mutable=['intermediates'], capture_intermediates=is_encoder, **kwargs
    )
    seen.append((result, variables['intermediates']))
    return result

  with mock.patch.object(Net, 'apply', apply_and_keep):
    yield seen


def features(model: VDVAE, run: tuple) -> dict[str, Array]:
  """What a watched run computed, NHWC, under the names of the golden files.

  Levels are numbered in order of execution, and the last one is also called so.
  """
  (logits, levels), inside = run
  named = {'logits': logits, 'px_z': inside['px_z'][0]}
  if 'encoder' in inside:
    (acts,) = inside['encoder']['__call__']
    named |= {f'acts/{res}': value for res, value in acts.items()}
  number = 0
  for blocks, level in zip(model.decoder_runs, levels, strict=True):
    kept = jax.tree.map(jnp.asarray, inside['decoder'][blocks.name])
    stacked = (level, kept['prior_dist'][0], kept['kl'][0])
    for (group, kl), prior, kl_map in layers.unstack(stacked, blocks.count):
      number += 1
      of_level = {
        'z': group.z,
        'qm': group.mean,
        'qv': jnp.log(group.scale),
        'pm': prior.mean,
        'pv': prior.logstd,
        'kl_map': kl_map,
        'kl_sum': kl.sum(-1),
      }
      for name, value in of_level.items():
        named |= {f'{name}/{number - 1}': value, f'{name}/last': value}
  return named


def channels_last(name: str, value: Any) -> Any:
  """A feature of the release, NCHW, turned to NHWC; images and logits already are."""
  is_feature = value.ndim == 4 and name.split('/')[0] != 'logits'
  return value.transpose(0, 2, 3, 1) if is_feature else value
