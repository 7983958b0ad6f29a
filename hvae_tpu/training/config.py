"""Sections of a config that every training run has, each field with its default and range.

`config.optimizer` stands in optimizers.py, and `config.model` in the dataclass of the model.
"""

import dataclasses
import math
from typing import Any

from ml_collections import config_dict

from hvae_tpu import settings
from hvae_tpu.errors import UserError
from hvae_tpu.settings import setting
from hvae_tpu.training.optimizers import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class RequireConfig:
  """`config.data.require`: the version of the data set that the config is made for."""

  variant: str = ''  # of the data card; '': any
  split_sha256: str = ''  # checksum of the index list of train_split; '': any


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """`config.data`: the data set, its views, and how examples are read."""

  name: str = ''  # folder below root, written by `python -m data_prep.build NAME`
  root: str = ''  # folder of all data sets; '': $HVAE_DATA, else `data`
  fields: tuple[str, ...] = ('image',)  # fields of a record that the model reads
  require: RequireConfig = RequireConfig()
  train_split: str = 'train'  # view of the data card that training reads
  valid_split: str = 'valid'  # view that is evaluated during training
  test_split: str = 'test'  # view that --mode=eval reads
  # Names: flip, binarize, crop:N, centre_crop:N. Training draws them anew at each visit.
  train_transforms: tuple[str, ...] = ()
  eval_transforms: tuple[str, ...] = ()  # as train_transforms, but drawn once per example
  seq_len: int = setting(0, least=0)  # frames of a training clip (video only); 0: whole sequences
  eval_seq_len: int = setting(0, least=0)  # frames of an evaluation clip; 0: whole sequences
  cache_mb: int = setting(1024, least=0)  # MiB; a training split up to this size stays in memory
  num_workers: int = setting(0, least=0)  # reader processes; 0: threads, faster for cheap decoding


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """`config.mesh`: number of devices along each axis; -1: the devices that the others leave."""

  data: int = setting(-1, least=-1)
  fsdp: int = setting(1, least=-1)
  spatial: int = setting(1, least=-1)  # devices that share the rows of an example


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """`config.train`: length of the training, the update, logs and checkpoints."""

  batch_size: int = setting(32, least=1)  # examples, of all devices together
  num_steps: int = setting(1_000_000, least=0)  # updates; 0: no training
  # Epochs; decides num_steps once the size of the data set is known; None: num_steps counts.
  num_epochs: int | None = setting(None, least=1)
  # precision of convolutions and matrix products
  precision: str = setting('highest', choices=('default', 'high', 'highest'))
  clock: str = setting('attempted', choices=('attempted', 'applied'))  # updates, for schedules
  ema_decay: float | None = setting(None, least=0, below=1)  # None: no average of the parameters
  # Gradient norm, in the scale of the loss, from which on an update is skipped.
  skip_threshold: float = setting(math.inf, above=0, infinite=True)
  max_skipped_in_row: int = setting(500, least=0)  # updates; then the run stops; 0: never
  # Whether skipped updates count for Adam's bias correction, as in vdvae-jax.
  skip_advances_step: bool = False
  log_every: int = setting(1000, least=1)  # steps
  progress_metrics: tuple[str, ...] = ('loss', 'grad_norm')  # metrics on the progress line
  save_every: int = setting(10_000, least=0)  # steps; 0: only at the end
  save_epochs: int | None = setting(None, least=1)  # epochs; if set, replaces save_every
  keep_latest: int = setting(2, least=1)  # newest checkpoints that are kept
  keep_every: int = setting(0, least=0)  # steps; multiples of it are kept too; 0: none
  best_metric: str = 'elbo/bpd'  # result whose smallest value is --checkpoint=best; '': none
  profile_at: int = setting(0, least=0)  # steps since the start, to begin a trace at; 0: no trace
  profile_steps: int = setting(5, least=1)  # steps in that trace, which lies in train/
  init_from: str = ''  # work directory of a run whose weights to start from; '': fresh weights
  # seconds after which the other processes stop when one has disappeared
  heartbeat_seconds: int = setting(100, least=1)
  allow_config_change: bool = False  # whether to resume with another model, data or seed


@dataclasses.dataclass(frozen=True)
class _TopLevel:
  """The fields beside the sections."""

  name: str = ''
  seed: int = setting(0, least=0, below=2**32)


SECTIONS = {
  'data': DataConfig,
  'mesh': MeshConfig,
  'train': TrainConfig,
  'optimizer': OptimizerConfig,
}


def check_config(config: config_dict.ConfigDict) -> None:
  """Checks the values of the shared sections, and that no number of the config is NaN.

  Raises:
    UserError: values that are not allowed; the message names every one of them.
  """
  problems = [f'{key} must be a number, not NaN' for key in _nan_keys(config, 'config')]
  if problems:
    raise UserError('; '.join(problems))
  settings.checked(_TopLevel, {'name': config.name, 'seed': config.seed}, 'config')
  for name, section in SECTIONS.items():
    settings.checked(section, config[name], f'config.{name}')


def _nan_keys(value: Any, key: str) -> list[str]:
  """Dotted keys of the NaNs in a tree of sections and tuples."""
  if isinstance(value, config_dict.ConfigDict):
    return [k for name in value for k in _nan_keys(value[name], f'{key}.{name}')]
  if isinstance(value, tuple | list):
    return [k for i, item in enumerate(value) for k in _nan_keys(item, f'{key}[{i}]')]
  return [key] if isinstance(value, float) and math.isnan(value) else []
