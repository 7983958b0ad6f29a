"""Sections that every system shares. Each field is declared once, in the package that uses it."""

import ml_collections

from hvae_tpu import evals, settings
from hvae_tpu.modes import MODES
from hvae_tpu.training.config import DataConfig, MeshConfig, TrainConfig
from hvae_tpu.training.optimizers import OptimizerConfig


def base() -> ml_collections.ConfigDict:
  """Returns data, mesh, train, optimizer, evals and one section a mode; systems add the model."""
  config = ml_collections.ConfigDict()
  config.name = ''  # `<data set>-<argument>`; names the default work directory
  config.seed = 0  # of initial weights, order of the data, and all noise; below 2**32

  config.data = settings.defaults(DataConfig)
  config.mesh = settings.defaults(MeshConfig)
  config.train = settings.defaults(TrainConfig)
  config.optimizer = settings.defaults(OptimizerConfig)
  config.evals = evals.defaults()
  for name, mode in MODES.items():
    if hasattr(mode, 'Options'):
      config[name] = settings.defaults(mode.Options)
  return config
