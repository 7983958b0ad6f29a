"""How much information each latent channel carries, stored; what pruning goes by.

<run>/div_stats/<step>-<weights>.npz    kl, float32 [L, V], mean KL of a variate over examples,
                                        summed over space, nats; bits, the same in bits per position
                                        (what Efficient-VDVAE calls div_stats)
<run>/div_stats/<step>-<weights>.json   the weights they belong to, the data, level names
"""

from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.evals import pruned
from hvae_tpu.models import protocol
from hvae_tpu.modes.loaded_run import Trained, check_origin
from hvae_tpu.storage import files

METHODS = ('kl_per_variate', 'pruned', 'level_sizes')


def folder(trained: Trained) -> Path:
  return trained.run.workdir / 'div_stats'


def store(trained: Trained, kl: np.ndarray, about: dict[str, Any]) -> Path:
  """Writes both files; returns the path of the numbers."""
  path = folder(trained) / f'{trained.stem}.npz'
  bits = pruned.bits_per_position(kl, np.asarray(trained.run.model.level_sizes))
  # The text last: without it the numbers do not count.
  path.with_suffix('.json').unlink(missing_ok=True)
  files.save_arrays(path, {'kl': kl.astype(np.float32), 'bits': bits.astype(np.float32)})
  files.save_json(path.with_suffix('.json'), about)
  return path


def check_quantile(quantile: Any, key: str) -> None:
  """Raises UserError if it is no number in (0, 1]; `key` is what errors call it."""
  if isinstance(quantile, bool) or not isinstance(quantile, int | float):
    raise UserError(f'{key} has {quantile!r}, which must be a number; 1 keeps everything')
  if not 0 < quantile <= 1:
    raise UserError(f'{key} has {quantile}, which must lie between 0 and 1; 1 keeps everything')


def variates(
  trained: Trained, config: ml_collections.ConfigDict, quantile: float, key: str
) -> np.ndarray | None:
  """Which variates a quantile keeps, bool [L, V]; None (all) for 1.

  Args:
    trained: weights to prune.
    config: of the command.
    quantile: the share of all variates that is kept: those that carry most bits per position.
    key: what errors call it.

  Raises:
    UserError: it is not in (0, 1], the model cannot be pruned, or there are no statistics of these
      weights.
  """
  check_quantile(quantile, key)
  if quantile == 1:
    return None
  protocol.require(trained.run.model, METHODS, f'{key}={quantile}', f'set {key} to 1')
  return pruned.most_active(_bits(trained, config, f'{key}={quantile}'), quantile)


def _bits(trained: Trained, config: ml_collections.ConfigDict, what: str) -> np.ndarray:
  path, step = folder(trained) / f'{trained.stem}.npz', trained.run.state.step
  remedy = f'run --mode=div_stats --checkpoint={step} with the same --config and --workdir'
  missing = (
    f'{what} needs div_stats of step {step}, {trained.weights} weights, but {path} is missing'
  )
  if others := ', '.join(sorted(other.stem for other in path.parent.glob('*.json'))):
    missing += f'; there are those of {others}'
  about_path = path.with_suffix('.json')
  about = files.read_json(about_path, remedy, missing=missing, keys=('origin', 'data'))
  bits = files.read_arrays(path, ('bits',), remedy, missing=missing)['bits']
  check_origin(about['origin'], trained.origin(), str(path), remedy)
  if about['data'] != config.data.name:
    raise UserError(
      f'{path} was made on data set {about["data"]}, but config.data.name={config.data.name}; '
      f'{remedy}'
    )
  return bits
