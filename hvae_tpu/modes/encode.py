"""`--mode=encode`: the latent variables of a split as files, which `latents.open_latents` reads."""

from collections.abc import Callable
import contextlib
from pathlib import Path

import jax
import ml_collections
import numpy as np

from hvae_tpu import data
from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.evals import reconstruction
from hvae_tpu.modes import loaded_run
from hvae_tpu.runs import channel_kl, latents
from hvae_tpu.training import setup

NEEDS = ('encode', 'level_names')


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Writes the folder `<run>/encode/<view>-<step>-<weights>[-q<quantile>]`. Returns the exit code.

  Raises:
    UserError: no such checkpoint or view, an unknown format, or a quantile without div_stats.
  """
  options = config.encode
  latents.check_formats(tuple(options.formats))
  trained = loaded_run.open_trained(config, workdir, checkpoint, '--mode=encode', NEEDS)
  quantile, view = options.quantile, setup.view_name(config, options.split)
  mask = channel_kl.variates(trained, config, quantile, 'config.encode.quantile')
  dataset = setup.open_data(config)
  if options.num < 0:
    raise UserError(f'config.encode.num={options.num} must not be negative; 0 takes all examples')
  count = min(options.num or dataset.size(view), dataset.size(view))
  suffix = '' if mask is None else f'-q{quantile:g}'
  name = f'{view.replace("/", "-")}-{trained.stem}{suffix}'
  source = f'{config.data.name}/{dataset.view(view)["split"]}'
  about = {
    'build_id': dataset.card['build_id'],
    'view': view,
    'quantile': quantile,
    'seed': options.seed,
    'batch_size': config.evals.batch_size,
    'level_names': trained.run.model.level_names,
    'origin': trained.origin(),
  }

  def work(check: Callable[[], None]) -> int:
    folder = trained.run.workdir / 'encode' / name
    _write(config, trained, dataset, mask, count, folder, source, about, check)
    loaded_run.say(f'latents of {count:,} examples of {view} in {folder}')
    return 0

  return loaded_run.interruptible(work)


def _write(
  config: ml_collections.ConfigDict,
  trained: loaded_run.Trained,
  dataset: data.Dataset,
  mask: np.ndarray | None,
  count: int,
  folder: Path,
  source: str,
  about: dict,
  check: Callable[[], None],
) -> None:
  """Encodes on all devices; process 0 writes."""
  options, run, size = config.encode, trained.run, config.evals.batch_size
  sharding.check_batch_size(size, run.mesh, 'evals.batch_size')
  encode = reconstruction.coders(run.model, run.mesh).encode
  rng, indices = jax.random.key(options.seed), dataset.indices(about['view'])
  total = -(-count // size)
  batches = setup.eval_batches(dataset, config, run.mesh, options.split, check)()
  parts = latents.PARTS if options.moments else ('z',)
  writer = contextlib.nullcontext()
  if jax.process_index() == 0:
    shard_bytes = options.shard_mb * 2**20
    writer = latents.Writer(folder, source, about, mask, parts, tuple(options.formats), shard_bytes)
  with writer, contextlib.closing(batches):
    for number, batch in zip(range(total), loaded_run.shown(batches, total), strict=False):
      key = reconstruction.key_of(rng, number)
      found = sharding.to_host(encode(trained.params, run.state.model_state, batch, key, mask))
      if jax.process_index() == 0:
        rows = slice(number * size, min((number + 1) * size, count))
        first = jax.tree.map(lambda a, n=rows.stop - rows.start: a[:n], found)
        writer.add(indices[rows], first)
