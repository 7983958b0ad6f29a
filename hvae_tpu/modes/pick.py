"""`--mode=pick`: numbered samples to choose from, and a sheet of the chosen ones."""

from collections.abc import Callable
import dataclasses
from pathlib import Path
import sys
from typing import Any

import jax
import ml_collections
import numpy as np

from hvae_tpu import generation
from hvae_tpu.errors import UserError
from hvae_tpu.figures import images, sheets
from hvae_tpu.generation.candidates import check_numbers, read_choice
from hvae_tpu.modes import loaded_run
from hvae_tpu.nn import temperatures
from hvae_tpu.nn.distributions import Latents
from hvae_tpu.runs import latents
from hvae_tpu.runs.restore import LoadedRun
from hvae_tpu.settings import setting
from hvae_tpu.storage import files

FOLDERS = ('pick',)
REPORTED = True
PER_SHEET = 9
COLUMNS = 3


@dataclasses.dataclass(frozen=True)
class Options(loaded_run.TemperedOptions):
  """Options of `--mode=pick`."""

  # numbers of the chosen candidates, in order; (): ask at a terminal
  choose: tuple[int, ...] = setting(())
  sheets: int = setting(4, least=1)  # sheets with nine candidates each
  columns: int = setting(3, least=1)  # columns of the sheet of chosen candidates


@loaded_run.interruptible
def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  raise_if_interrupted: Callable[[], None],
) -> None:
  """Writes below `<run>/pick/<step>-<weights>-seed<seed>/`.

  `sheet-<n>.png` has nine numbered candidates. Once numbers are chosen, in the config or at a
  terminal, the choice is written: `chosen.png` in the order of the choice, `chosen-<number>.png`,
  `chosen.json`, from which they can be drawn again, and `latents`, a folder that `--mode=decode`
  reads.

  Raises:
    UserError: no such checkpoint, a number that no candidate has, or a setting out of range.
  """
  options = loaded_run.read_options(Options, config, 'pick')
  count = options.sheets * PER_SHEET
  numbers = check_numbers(options.choose, count, 'config.pick.choose')
  loaded = loaded_run.load_run(config, workdir, checkpoint, 'pick', generation.NEEDS)
  key = 'config.pick.temperature'
  temperature = temperatures.per_level_from_tuple(loaded.model, options.temperature, key)
  model, state = loaded_run.model_for_sampling(loaded, options, temperature)
  settings = dict(temperature=temperature, seed=options.seed)
  draw = lambda numbers: generation.candidates(model, loaded.params, state, numbers, **settings)
  folder = loaded.workdir / 'pick' / f'{loaded.checkpoint_tag}-seed{options.seed}'
  if not numbers:
    asks = sys.stdin.isatty() and jax.process_count() == 1
    numbers = _offer(draw, folder, options.sheets, asks, raise_if_interrupted)
  if not numbers:
    loaded_run.print_once(
      f"{count} candidates in {folder}; choose with --config.pick.choose='(3,7)' and the same seed"
    )
    return
  chosen, pictures = draw(numbers)
  if jax.process_index() == 0:
    _store(folder, loaded, numbers, chosen, pictures, options)
    print(f'{len(numbers)} chosen; stored in {folder}')


def _offer(
  draw: Callable[..., Any],
  folder: Path,
  count: int,
  asks: bool,
  raise_if_interrupted: Callable[[], None],
) -> tuple[int, ...]:
  """Writes sheets, one at a time; at a terminal, asks for numbers after each."""
  chosen: tuple[int, ...] = ()
  for sheet in range(1, count + 1):
    raise_if_interrupted()
    numbers = range((sheet - 1) * PER_SHEET + 1, sheet * PER_SHEET + 1)
    _, pictures = draw(numbers)
    path = folder / f'sheet-{sheet:02d}.png'
    if jax.process_index() == 0:
      images.save_png(path, sheets.numbered(pictures, numbers, COLUMNS))
    if asks:
      print(f'{path}: candidates {numbers[0]} to {numbers[-1]}')
      more, done = _ask(chosen, numbers[-1])
      chosen += more
      if done:
        break
  return chosen


def _ask(chosen: tuple[int, ...], count: int) -> tuple[tuple[int, ...], bool]:
  """Returns the numbers that a person adds, and whether the choice is complete."""
  while True:
    try:
      text = input('numbers to keep, in their order; Enter for the next sheet; q to finish: ')
    except EOFError:
      return (), True
    done = text.strip().lower().endswith('q')
    try:
      more = read_choice(text.strip().lower().removesuffix('q'), count)
      return check_numbers(chosen + more, count, 'the choice')[len(chosen) :], done
    except UserError as error:
      print(error)


def _store(
  folder: Path,
  loaded: LoadedRun,
  numbers: tuple[int, ...],
  chosen: Latents,
  pictures: np.ndarray,
  options: Options,
) -> None:
  """Writes pictures, record and latents of the chosen candidates."""
  columns = min(options.columns, len(numbers))
  images.save_png(folder / 'chosen.png', images.banded([pictures], columns))
  for number, picture in zip(numbers, pictures, strict=True):
    images.save_png(folder / f'chosen-{number:03d}.png', picture)
  about = {
    'origin': loaded.origin(),
    'seed': options.seed,
    'numbers': numbers,
    'temperature': list(options.temperature),
    'statistic': options.statistic,
    'refresh_iterations': options.refresh_iterations,
  }
  files.save_json(folder / 'chosen.json', about)
  card = {**about, 'batch_size': len(numbers) * loaded.mesh.size, 'view': 'prior'}
  source, size = f'prior/seed{options.seed}', 256 * 2**20
  with latents.Writer(folder / 'latents', source, card, None, ('z',), ('npz',), size) as writer:
    writer.add(np.array(numbers), chosen)
