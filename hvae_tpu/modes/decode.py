"""`--mode=decode`: pictures from stored latent variables, all of them or the coarsest groups."""

from collections.abc import Callable
import dataclasses
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
from hvae_tpu.runs.restore import LoadedRun
from hvae_tpu.settings import setting
from hvae_tpu.storage import files

NEEDS = ('decode', 'level_names')
FOLDERS = ('decode',)
REPORTED = True


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of `--mode=decode`."""

  latents: str = setting('')  # folder of latents; '': the newest of the work directory
  num: int = setting(64, least=0)  # first examples; 0: all
  # groups to keep, from the coarsest on; the others are drawn from the prior; -1: keep all
  keep: int = setting(-1, least=-1)
  # temperature of the drawn groups: one number, one number per level, or 'linear(a,b)'
  temperature: tuple[float | str, ...] = setting((1.0,), least=0)
  columns: int = setting(8, least=1)  # columns of the picture grid
  # seed of the drawn groups and the pixels; None: the seed of the encoding, which reconstructs
  seed: int | None = setting(None, least=0)


@loaded_run.interruptible
def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  raise_if_interrupted: Callable[[], None],
) -> None:
  """Writes `<run>/decode/<folder of the latents>-keep<k>.png` and `.npz`.

  The arrays are `pictures` [N, H, W, C], uint8, and `index` [N], the number of the record of
  `source` that each picture was made of.

  Raises:
    UserError: no such checkpoint or latents, latents of other weights, or a setting out of range.
  """
  options = loaded_run.read_options(Options, config, 'decode')
  loaded = loaded_run.load_run(config, workdir, checkpoint, 'decode', NEEDS)
  folder = _latents_folder(loaded.workdir, options.latents)
  stored = latents.open_latents(folder)
  loaded.check_origin(
    stored.card['origin'],
    f'config.decode.latents={folder}',
    'give the --checkpoint that they were encoded with, or other latents',
  )
  levels = len(loaded.model.level_names)
  keep = levels if options.keep == -1 else options.keep
  if keep > levels:
    raise UserError(
      f'config.decode.keep={keep} must be at most {levels}, the number of groups; -1 keeps all'
    )
  key = 'config.decode.temperature'
  temperature = temperatures.per_level_from_tuple(loaded.model, options.temperature, key)
  count = min(options.num or len(stored), len(stored))
  seed = stored.card['seed'] if options.seed is None else options.seed
  _check_batches(folder, stored, sharding.batch_shards(loaded.mesh))
  index, pictures = _decode(loaded, stored, keep, temperature, count, seed, raise_if_interrupted)
  if jax.process_index() == 0:
    path = loaded.workdir / 'decode' / f'{folder.name}-keep{keep}.npz'
    arrays = {'pictures': pictures, 'index': index, 'source': stored.card['source']}
    files.save_arrays(path, arrays)
    columns = min(options.columns, count)
    images.save_png(path.with_suffix('.png'), images.banded([pictures], columns))
    print(f'{count:,} pictures from the first {keep} of {levels} groups; stored in {path}')


def _latents_folder(workdir: Path, name: str) -> Path:
  """Returns the folder that `config.decode.latents` names; '' is the newest one of the run."""
  if name:
    return Path(name)
  cards = sorted(workdir.glob(f'encode/*/{latents.CARD}'), key=lambda path: path.stat().st_mtime)
  if not cards:
    raise UserError(
      f'{workdir / "encode"} holds no latents; run --mode=encode first, or give '
      f'--config.decode.latents=FOLDER'
    )
  return cards[-1].parent


def _check_batches(folder: Path, stored: latents.StoredLatents, shards: int) -> None:
  """Raises UserError if the batches of the encoding do not divide by the devices."""
  if stored.card['batch_size'] % shards:
    raise UserError(
      f'the latents in {folder} were encoded in batches of {stored.card["batch_size"]}, which must '
      f'divide by the {shards} devices here; decode on fewer devices, or encode again with '
      'config.evals.batch_size a multiple of them'
    )


def _decode(
  loaded: LoadedRun,
  stored: latents.StoredLatents,
  keep: int,
  temperature: np.ndarray,
  count: int,
  seed: int,
  raise_if_interrupted: Callable[[], None],
) -> tuple[np.ndarray, np.ndarray]:
  """Decodes the first examples in the batches of the encoding: record numbers and pictures."""
  size = stored.card['batch_size']
  decode = reconstruction.coders(loaded.model, loaded.mesh).decode
  pruning = None if stored.variates.all() else stored.variates
  given = reconstruction.given_groups(pruning, keep, len(stored.variates))
  rng, share = jax.random.key(seed), size // jax.process_count()
  total = -(-count // size)
  indices, pictures = [], []
  numbers = loaded_run.with_progress(range(total), total, raise_if_interrupted=raise_if_interrupted)
  for number in numbers:
    places = np.arange(number * size, (number + 1) * size)
    places = places[jax.process_index() * share :][:share]
    # Padded in the same way as the batch of the encoding.
    index, _, groups = stored.read(np.minimum(places, len(stored) - 1))
    z, index = sharding.put((tuple(g.z for g in groups), index.astype(np.int32)), loaded.mesh)
    key = reconstruction.key_of(rng, number)
    batch = decode(loaded.params, loaded.model_state, z, key, given, temperature)
    rows = min(size, count - number * size)
    for parts, array in ((indices, index), (pictures, batch)):
      parts.append(sharding.to_host(array)[:rows])
  return np.concatenate(indices), np.concatenate(pictures)
