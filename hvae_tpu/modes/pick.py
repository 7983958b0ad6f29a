"""`--mode=pick`: numbered samples to choose from, and a sheet of the chosen ones."""

from collections.abc import Callable
from pathlib import Path
import sys
from typing import Any

import jax
import ml_collections
import numpy as np

from hvae_tpu import generation
from hvae_tpu.errors import UserError
from hvae_tpu.figures import images, sheets
from hvae_tpu.generation.candidates import checked, read_choice
from hvae_tpu.modes import loaded_run
from hvae_tpu.nn import temperatures
from hvae_tpu.runs import latents
from hvae_tpu.storage import files

PER_SHEET = 9
COLUMNS = 3


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Writes below `<run>/pick/<step>-<weights>-seed<seed>/`. Returns the exit code.

  `sheet-<n>.png`, nine numbered candidates each. Once numbers are chosen, in the config or at a
  terminal: `chosen.png` in the order of the choice, `chosen-<number>.png`, `chosen.json`, which
  says how they are drawn again, and `latents`, a folder that `--mode=decode` reads.

  Raises:
    UserError: no such checkpoint, a number that no candidate has, or a setting out of range.
  """
  options = config.pick
  for key in ('sheets', 'columns'):
    if options[key] < 1:
      raise UserError(f'config.pick.{key}={options[key]} must be at least 1')
  count = options.sheets * PER_SHEET
  chosen = checked(tuple(options.choose), count, 'config.pick.choose')
  trained = loaded_run.open_trained(config, workdir, checkpoint, '--mode=pick', generation.NEEDS)
  temperature = temperatures.per_level_from_tuple(
    trained.run.model, options.temperature, 'config.pick.temperature'
  )
  model, state = loaded_run.prepared(trained, options, temperature)
  settings = dict(temperature=temperature, seed=options.seed)
  draw = lambda numbers: generation.candidates(model, trained.params, state, numbers, **settings)
  folder = trained.run.workdir / 'pick' / f'{trained.stem}-seed{options.seed}'

  def work(check: Callable[[], None]) -> int:
    numbers = chosen
    if not numbers:
      asks = sys.stdin.isatty() and jax.process_count() == 1
      numbers = _offer(draw, folder, options.sheets, asks, check)
    if not numbers:
      loaded_run.say(
        f"{count} candidates in {folder}; choose with --config.pick.choose='(3,7)' and the same "
        f'seed'
      )
      return 0
    found, pictures = draw(numbers)
    if jax.process_index() == 0:
      _store(folder, trained, numbers, found, pictures, options)
      print(f'{len(numbers)} chosen; stored in {folder}')
    return 0

  return loaded_run.interruptible(work)


def _offer(
  draw: Callable[..., Any], folder: Path, count: int, asks: bool, check: Callable[[], None]
) -> tuple[int, ...]:
  """Writes sheets, one at a time; at a terminal, asks for numbers after each."""
  chosen: tuple[int, ...] = ()
  for number in range(1, count + 1):
    check()
    numbers = range((number - 1) * PER_SHEET + 1, number * PER_SHEET + 1)
    _, pictures = draw(numbers)
    path = folder / f'sheet-{number:02d}.png'
    if jax.process_index() == 0:
      images.save_png(path, sheets.numbered(pictures, numbers, COLUMNS))
    if asks:
      print(f'{path}: candidates {numbers[0]} to {numbers[-1]}')
      more, done = _asked(chosen, numbers[-1])
      chosen += more
      if done:
        break
  return chosen


def _asked(chosen: tuple[int, ...], count: int) -> tuple[tuple[int, ...], bool]:
  """Numbers that a person adds, and whether that was all."""
  while True:
    try:
      text = input('numbers to keep, in their order; Enter for the next sheet; q to finish: ')
    except EOFError:
      return (), True
    done = text.strip().lower().endswith('q')
    try:
      found = read_choice(text.strip().lower().removesuffix('q'), count)
      return checked(chosen + found, count, 'the choice')[len(chosen) :], done
    except UserError as error:
      print(error)


def _store(
  folder: Path,
  trained: loaded_run.Trained,
  numbers: tuple[int, ...],
  found: latents.Latents,
  pictures: np.ndarray,
  options: ml_collections.ConfigDict,
) -> None:
  columns = min(options.columns, len(numbers))
  images.save_png(folder / 'chosen.png', images.banded([pictures], columns))
  for number, picture in zip(numbers, pictures, strict=True):
    images.save_png(folder / f'chosen-{number:03d}.png', picture)
  about = {
    'origin': trained.origin(),
    'seed': options.seed,
    'numbers': numbers,
    'temperature': list(options.temperature),
    'statistic': options.statistic,
    'refresh_iterations': options.refresh_iterations,
  }
  files.save_json(folder / 'chosen.json', about)
  card = {**about, 'batch_size': len(numbers) * trained.run.mesh.size, 'view': 'prior'}
  source, size = f'prior/seed{options.seed}', 256 * 2**20
  with latents.Writer(folder / 'latents', source, card, None, ('z',), ('npz',), size) as writer:
    writer.add(np.array(numbers), found)
