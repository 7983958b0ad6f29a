"""`--mode=div_stats`: how much information every latent channel carries, for pruning."""

from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections

from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.evals import pruned
from hvae_tpu.modes import loaded_run
from hvae_tpu.runs import channel_kl
from hvae_tpu.training import setup


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Writes `<run>/div_stats/<step>-<weights>.npz` and `.json`. Returns the exit code.

  Raises:
    UserError: no such checkpoint or view, a model without KLs of variates, or too small a share.
  """
  share, seed = config.div_stats.share, config.div_stats.seed
  needs = ('kl_per_variate', 'level_sizes')
  trained = loaded_run.open_trained(config, workdir, checkpoint, '--mode=div_stats', needs)
  dataset = setup.open_data(config)
  view, batch_size = setup.view_name(config, config.div_stats.split), config.evals.batch_size
  sharding.check_batch_size(batch_size, trained.run.mesh, 'evals.batch_size')
  size = dataset.size(view)
  total = int(share * size) // batch_size if 0 < share <= 1 else 0
  if not total:
    raise UserError(
      f'config.div_stats.share={share} must be at most 1, and at least one batch '
      f'(config.evals.batch_size={batch_size}) of the {size:,} examples of {view}'
    )

  def measure(check: Callable[[], None]) -> int:
    mesh, state = trained.run.mesh, trained.run.state
    batches = setup.random_batches(dataset, config, mesh, view, seed, total, check)
    kl = pruned.mean_kl(trained.run.model)(
      trained.params, state.model_state, loaded_run.shown(batches, total), jax.random.key(seed)
    )
    about = {
      'origin': trained.origin(),
      'data': config.data.name,
      'view': view,
      'examples': total * batch_size,
      'seed': seed,
      'level_names': trained.run.model.level_names,
    }
    if jax.process_index() == 0:
      path = channel_kl.store(trained, kl, about)
      print(f'{kl.shape[0]} groups of {kl.shape[1]} variates, {kl.sum():.4g} nats in all')
      print(f'mean over {total * batch_size:,} examples of {view}; stored in {path}')
    return 0

  return loaded_run.interruptible(measure)
