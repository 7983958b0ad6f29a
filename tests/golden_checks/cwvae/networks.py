"""Models, tables and tolerances, for all Clockwork VAE checks."""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp

from hvae_tpu.importers import cwvae, tables
from hvae_tpu.importers.tables import Entry
from hvae_tpu.models.cwvae import CWVAE
from hvae_tpu.models.cwvae.cells import LevelOutputs
from tests.support.golden_files import Golden, Tolerance

Cases = dict[str, Callable[[], None]]
RNG = jax.random.key(0)

FEATURES = Tolerance(1e-4, 2e-5)  # states, features, KL of a tick, frames
FRAME_MEAN = Tolerance(1e-5, 1e-5)
SUM = Tolerance(2e-6, 0)  # loss and likelihood: large sums
KL = Tolerance(1e-4, 0)
GRADIENT = Tolerance(2e-3, 0, of_max=2e-5)
GRAD_NORM = Tolerance(1e-3, 0)

SAME_NAMES = (
  'levels',
  'tmp_abs_factor',
  'dec_stddev',
  'enc_dense_layers',
  'enc_dense_embed_size',
  'cell_stoch_size',
  'cell_deter_size',
  'cell_embed_size',
  'cell_min_stddev',
  'channels_mult',
  'filters',
)


def model_of(config: Mapping[str, Any]) -> CWVAE:
  """Returns our model of a reference config.

  Convolutions are direct ones: in the file of the official code a unit lies 2e-9 from the kink of
  a leaky ReLU, and sums in another order move it across, which changes gradients by 1e-3.
  """
  return CWVAE(
    **{name: config[name] for name in SAME_NAMES if name in config},
    image_channels=config['channels'],
    use_obs=config.get('use_obs') or '',
    convolutions='direct',
  )


@functools.cache
def entries(model: CWVAE) -> list[Entry]:
  return cwvae.JAX.entries(model)


def read_params(golden: Golden, model: CWVAE) -> Any:
  return tables.import_params(entries(model), golden.under('param'), golden.path.name)


def ticks(name: str, level: int, outputs: LevelOutputs) -> dict[str, Any]:
  """Statistics of one side of a level, 'prior' or 'posterior', under the names of the files.

  What the prior would draw is not part of ours where the posterior goes on.
  """
  dist = getattr(outputs, name)
  return {
    f'{name}_mean_level{level}': dist.mean,
    f'{name}_stddev_level{level}': dist.std,
    f'{name}_det_out_level{level}': outputs.det,
  }


def frame_statistics(frames: Any) -> dict[str, Any]:
  """Returns mean and mean square over the pixels of each frame, [B, T]."""
  return {
    'frame_mean': frames.mean((2, 3, 4)),
    'frame_sqmean': jnp.square(frames).mean((2, 3, 4)),
  }


def tolerance(name: str) -> Tolerance:
  """Returns the tolerance of a result by its name, without the name of its pass."""
  last = name.split('/')[-1]
  if last in ('loss', 'nll_term') or last == 'nll_per_frame':
    return SUM
  if last.startswith(('kl_term', 'avg_')):
    return KL
  if 'grad' in last:
    return GRAD_NORM
  return FRAME_MEAN if last.endswith('mean') and 'frame' in last else FEATURES
