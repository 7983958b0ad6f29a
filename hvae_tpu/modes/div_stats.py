"""`--mode=div_stats`: the information that every latent channel carries, for pruning."""

from collections.abc import Callable
import dataclasses
from pathlib import Path

import jax
import ml_collections
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.evals import pruned
from hvae_tpu.modes import loaded_run
from hvae_tpu.runs import weight_statistics
from hvae_tpu.settings import setting
from hvae_tpu.training import setup

NEEDS = ('kl_per_variate', 'level_sizes')
FOLDERS = ('div_stats',)


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of `--mode=div_stats`."""

  split: str = setting('train')  # data to average over: train, valid, test, or a view's name
  share: float = setting(0.2, above=0, most=1)  # fraction of the split to average over
  seed: int = setting(0, least=0)  # seed of the choice of examples and of all noise


@loaded_run.interruptible
def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  raise_if_interrupted: Callable[[], None],
) -> None:
  """Writes `<run>/div_stats/<step>-<weights>.npz` and `.json` (see `runs.weight_statistics`).

  The arrays are float32 [L, V], a row per level: `kl`, mean KL of a variate over examples, summed
  over space, nats; `bits`, the same in bits per position, which Efficient-VDVAE calls div_stats.

  Raises:
    UserError: no such checkpoint or view, a model without KLs of variates, or too small a share.
  """
  options = loaded_run.read_options(Options, config, 'div_stats')
  loaded = loaded_run.load_run(config, workdir, checkpoint, 'div_stats', NEEDS)
  dataset = setup.open_data(config)
  view, batch_size = setup.view_name(config, options.split), config.evals.batch_size
  sharding.check_batch_size(batch_size, loaded.mesh, 'evals.batch_size')
  size = dataset.size(view)
  total = int(options.share * size) // batch_size
  if not total:
    raise UserError(
      f'config.div_stats.share={options.share} must be at least one batch '
      f'(config.evals.batch_size={batch_size}) of the {size:,} examples of {view}'
    )
  batches = setup.random_batches(
    dataset, config, loaded.mesh, view, options.seed, total, raise_if_interrupted
  )
  kl = pruned.mean_kl(loaded.model)(
    loaded.params,
    loaded.model_state,
    loaded_run.with_progress(batches, total),
    jax.random.key(options.seed),
  )
  about = {
    **loaded.about(view),
    'examples': total * batch_size,
    'seed': options.seed,
    'level_names': loaded.model.level_names,
  }
  if jax.process_index() == 0:
    bits = pruned.bits_per_position(kl, np.asarray(loaded.model.level_sizes))
    arrays = {'kl': kl.astype(np.float32), 'bits': bits.astype(np.float32)}
    path = weight_statistics.store(loaded, 'div_stats', arrays, about)
    print(f'{kl.shape[0]} groups of {kl.shape[1]} variates, {kl.sum():.4g} nats in all')
    print(f'mean over {total * batch_size:,} examples of {view}; stored in {path}')
