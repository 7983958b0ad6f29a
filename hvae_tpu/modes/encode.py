"""`--mode=encode`: the latent variables of a split as files, which `latents.open_latents` reads."""

from collections.abc import Callable
import contextlib
import dataclasses
from pathlib import Path

import jax
import ml_collections

from hvae_tpu.devices import sharding
from hvae_tpu.evals import reconstruction
from hvae_tpu.modes import loaded_run, pruning
from hvae_tpu.runs import latents
from hvae_tpu.settings import setting
from hvae_tpu.training import setup

NEEDS = ('encode', 'level_names')
FOLDERS = ('encode',)


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of `--mode=encode`."""

  split: str = setting('test')  # data to encode: train, valid, test, or a view's name
  # fraction of latent channels to keep, ranked by their bits; less than 1 needs div_stats
  quantile: float = setting(1.0, above=0, most=1)
  num: int = setting(0, least=0)  # first examples of the split; 0: all
  # whether to store means and scales, too; decoding does not need them
  moments: bool = setting(True)
  formats: tuple[str, ...] = setting(('array_record', 'npz'))  # array_record, npz, or both
  shard_mb: int = setting(256, least=1)  # size of a file, MiB
  seed: int = setting(0, least=0)  # seed of the draw from the posterior


@loaded_run.interruptible
def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  raise_if_interrupted: Callable[[], None],
) -> None:
  """Writes the folder `<run>/encode/<view>-<step>-<weights>[-q<quantile>]`.

  Raises:
    UserError: no such checkpoint or view, an unknown format, or a quantile without div_stats.
  """
  options = loaded_run.read_options(Options, config, 'encode')
  latents.check_formats(options.formats)
  loaded = loaded_run.load_run(config, workdir, checkpoint, 'encode', NEEDS)
  quantile, view = options.quantile, setup.view_name(config, options.split)
  mask = pruning.variates(loaded, quantile, 'config.encode.quantile')
  dataset = setup.open_data(config)
  count = min(options.num or dataset.size(view), dataset.size(view))
  size = config.evals.batch_size
  sharding.check_batch_size(size, loaded.mesh, 'evals.batch_size')
  folder = loaded.workdir / 'encode' / loaded.view_tag(view)
  folder = folder if mask is None else folder.with_name(f'{folder.name}-q{quantile:g}')
  about = {
    'build_id': dataset.card['build_id'],
    'view': view,
    'quantile': quantile,
    'seed': options.seed,
    'batch_size': size,
    'level_names': loaded.model.level_names,
    'origin': loaded.origin(),
  }
  encode = reconstruction.coders(loaded.model, loaded.mesh).encode
  rng, indices = jax.random.key(options.seed), dataset.indices(view)
  total = -(-count // size)
  batches = setup.eval_batches(dataset, config, loaded.mesh, options.split, raise_if_interrupted)()
  writer = contextlib.nullcontext()
  if jax.process_index() == 0:
    writer = latents.Writer(
      folder,
      f'{config.data.name}/{dataset.view(view)["split"]}',
      about,
      mask,
      latents.PARTS if options.moments else ('z',),
      options.formats,
      options.shard_mb * 2**20,
    )
  with writer, contextlib.closing(batches):
    numbered = zip(range(total), loaded_run.with_progress(batches, total), strict=False)
    for number, batch in numbered:
      key = reconstruction.key_of(rng, number)
      groups = sharding.to_host(encode(loaded.params, loaded.model_state, batch, key, mask))
      if jax.process_index() == 0:
        rows = slice(number * size, min((number + 1) * size, count))
        first = jax.tree.map(lambda array, n=rows.stop - rows.start: array[:n], groups)
        writer.add(indices[rows], first)
  loaded_run.print_once(f'latents of {count:,} examples of {view} in {folder}')
