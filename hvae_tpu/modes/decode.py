"""`--mode=decode`: pictures from stored latent variables, all of them or the coarsest groups."""

from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.evals import reconstruction
from hvae_tpu.figures import images
from hvae_tpu.modes import loaded_run
from hvae_tpu.nn import temperatures
from hvae_tpu.runs import latents
from hvae_tpu.storage import files

NEEDS = ('decode', 'level_names')


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Writes `<run>/decode/<folder of the latents>-keep<k>.png` and `.npz`. Returns the exit code.

  The arrays are `pictures` [N, H, W, C], uint8, and `index` [N], the record of `source` that each
  was made of.

  Raises:
    UserError: no such checkpoint or latents, latents of other weights, or a setting out of range.
  """
  options = config.decode
  trained = loaded_run.open_trained(config, workdir, checkpoint, '--mode=decode', NEEDS)
  model, folder = trained.run.model, _folder(trained.run.workdir, options.latents)
  stored = latents.open_latents(folder)
  loaded_run.check_origin(
    stored.card['origin'],
    trained.origin(),
    f'config.decode.latents={folder}',
    'give the --checkpoint that they were encoded with, or other latents',
  )
  levels = len(model.level_names)
  keep = levels if options.keep == -1 else options.keep
  if not 0 <= keep <= levels:
    raise UserError(
      f'config.decode.keep={options.keep} must lie between 0 and {levels}, the number of groups; '
      f'-1 keeps all'
    )
  loaded_run.check_least('decode', options, num=0, columns=1)
  temperature = temperatures.per_level_from_tuple(
    model, options.temperature, 'config.decode.temperature'
  )
  count = min(options.num or len(stored), len(stored))
  seed = stored.card['seed'] if options.seed is None else options.seed
  parts = sharding.batch_parts(trained.run.mesh)
  if stored.card['batch_size'] % parts:
    raise UserError(
      f'the latents in {folder} were encoded in batches of {stored.card["batch_size"]}, which must '
      f'divide by the {parts} devices here; decode on fewer devices, or encode again with '
      'config.evals.batch_size a multiple of them'
    )

  def work(check: Callable[[], None]) -> int:
    index, pictures = _decode(trained, stored, keep, temperature, count, seed, check)
    if jax.process_index() == 0:
      path = trained.run.workdir / 'decode' / f'{folder.name}-keep{keep}.npz'
      arrays = {'pictures': pictures, 'index': index, 'source': stored.card['source']}
      files.save_arrays(path, arrays)
      columns = min(options.columns, count)
      images.save_png(path.with_suffix('.png'), images.banded([pictures], columns))
      print(f'{count:,} pictures from the first {keep} of {levels} groups; stored in {path}')
    return 0

  return loaded_run.interruptible(work)


def _folder(workdir: Path, given: str) -> Path:
  """The folder that `config.decode.latents` names; '' is the newest one of the run."""
  if given:
    return Path(given)
  found = sorted(workdir.glob(f'encode/*/{latents.CARD}'), key=lambda path: path.stat().st_mtime)
  if not found:
    raise UserError(
      f'{workdir / "encode"} holds no latents; run --mode=encode first, or give '
      f'--config.decode.latents=FOLDER'
    )
  return found[-1].parent


def _decode(
  trained: loaded_run.Trained,
  stored: latents.Stored,
  keep: int,
  temperature: np.ndarray,
  count: int,
  seed: int,
  check: Callable[[], None],
) -> tuple[np.ndarray, np.ndarray]:
  """Record numbers [count] and pictures of the first examples, in the batches of the encoding."""
  run, size = trained.run, stored.card['batch_size']
  decode = reconstruction.coders(run.model, run.mesh).decode
  pruning = None if stored.variates.all() else stored.variates
  given = reconstruction.given_groups(pruning, keep, len(stored.variates))
  rng, share = jax.random.key(seed), size // jax.process_count()
  total = -(-count // size)
  indices, pictures = [], []
  for number in loaded_run.shown(iter(range(total)), total):
    check()
    places = np.arange(number * size, (number + 1) * size)
    mine = places[jax.process_index() * share :][:share]
    # Filled up as the batch was that they come from.
    index, _, groups = stored.read(np.minimum(mine, len(stored) - 1))
    z, index = sharding.put((tuple(g.z for g in groups), index.astype(np.int32)), run.mesh)
    key = reconstruction.key_of(rng, number)
    found = decode(trained.params, run.state.model_state, z, key, given, temperature)
    rows = min(size, count - number * size)
    for parts, array in ((indices, index), (pictures, found)):
      parts.append(sharding.to_host(array)[:rows])
  return np.concatenate(indices), np.concatenate(pictures)
