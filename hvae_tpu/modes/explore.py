"""`--mode=explore`: variations of samples, one group of latent variables at a time."""

from collections.abc import Callable
import dataclasses
from pathlib import Path
import re
from typing import Any

import jax
import ml_collections
import numpy as np

from hvae_tpu import generation
from hvae_tpu.errors import UserError
from hvae_tpu.figures import films, images, sheets
from hvae_tpu.generation import programs, variation
from hvae_tpu.modes import loaded_run
from hvae_tpu.nn import temperatures
from hvae_tpu.settings import setting

FOLDERS = ('explore',)
REPORTED = True


@dataclasses.dataclass(frozen=True)
class Options(loaded_run.TemperedOptions):
  """Options of `--mode=explore`."""

  groups: tuple[int, ...] = setting(())  # numbers of groups; 0 is the coarsest; (): all
  rows: int = setting(4, least=1)  # number of samples
  num: int = setting(7, least=1)  # variations of each sample
  noise_std: float = setting(variation.NOISE_STD, least=0)  # deviation of the new noise
  position: str = setting('all')  # positions with new noise: 'all', 'row,column', or 'each' in turn
  differences: bool = setting(False)  # show differences, on grey, instead of the variations
  fps: float = setting(4.0, above=0)  # frames per second of the animations


@loaded_run.interruptible
def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  raise_if_interrupted: Callable[[], None],
) -> None:
  """Writes below `<run>/explore/<step>-<weights>/`.

  `group-<number>.png` and `.gif` have a sample and its variations in a row; `contact.png` has the
  first row of every group. With position 'each' `sweep-<number>.png` and `.gif` are written
  instead, laid out as the group's map of positions.

  Raises:
    UserError: no such checkpoint, group or position, or a setting out of range.
  """
  options = loaded_run.read_options(Options, config, 'explore')
  position = _read_position(options.position)
  loaded = loaded_run.load_run(config, workdir, checkpoint, 'explore', generation.NEEDS)
  model = loaded.model
  for group in options.groups:
    programs.check_group(model, group, 'config.explore.groups')
  groups = options.groups or tuple(range(len(model.level_names)))
  temperature = temperatures.per_level_from_tuple(
    model, options.temperature, 'config.explore.temperature'
  )
  model, state = loaded_run.model_for_sampling(loaded, options, temperature)
  arguments = dict(noise_std=options.noise_std, temperature=temperature, seed=options.seed)
  if position != 'each':
    arguments |= dict(rows=options.rows, num=options.num, position=position)
  pictures = {}
  for group in loaded_run.with_progress(groups, len(groups), 'group', raise_if_interrupted):
    draw = generation.sweep if position == 'each' else generation.vary
    pictures[group] = draw(model, loaded.params, state, group, **arguments)
  if jax.process_index() == 0:
    folder = loaded.workdir / 'explore' / loaded.checkpoint_tag
    if position == 'each':
      _store_sweeps(folder, pictures, options)
    else:
      _store_variations(folder, pictures, model.level_names, options)
    print(f'{len(groups)} of {len(model.level_names)} groups; stored in {folder}')


def _read_position(text: str) -> Any:
  """Returns 'each', None for 'all', or (row, column)."""
  if match := re.fullmatch(r'\(?(\d+), *(\d+)\)?', text):
    return int(match[1]), int(match[2])
  if text not in ('all', 'each'):
    raise UserError(
      f"config.explore.position={text!r} must be 'all', 'each', or one as 'row,column'"
    )
  return None if text == 'all' else text


def _store_sweeps(folder: Path, sweeps: dict[int, np.ndarray], options: Options) -> None:
  """Writes sheet and animation of each group, one position after the other."""
  for group, pictures in sweeps.items():
    images.save_png(folder / f'sweep-{group:02d}.png', sheets.sheet(list(pictures)))
    frames = pictures.reshape(-1, 1, *pictures.shape[2:])
    _save_frames(folder / f'sweep-{group:02d}.gif', frames, options.fps)


def _store_variations(
  folder: Path, variations: dict[int, np.ndarray], names: tuple[str, ...], options: Options
) -> None:
  """Writes sheet and animation of each group, all rows side by side, and the contact sheet."""
  heads = ['sample', *(f'variation {i}' for i in range(1, 1 + options.num))]
  for group, pictures in variations.items():
    rows = variation.differences(pictures) if options.differences else pictures
    images.save_png(folder / f'group-{group:02d}.png', sheets.sheet(list(rows), heads=heads))
    _save_frames(folder / f'group-{group:02d}.gif', pictures.swapaxes(0, 1), options.fps)
  rows = [pictures[0] for pictures in variations.values()]
  labels = [names[group] for group in variations]
  images.save_png(folder / 'contact.png', sheets.sheet(rows, labels, heads=heads))


def _save_frames(path: Path, frames: np.ndarray, fps: float) -> None:
  """Writes pictures [T, N, H, W, C] as an animation of T frames with N pictures each."""
  grids = np.stack([images.grid(sheets.enlarged(frame)) for frame in frames])
  films.save_gif(path, grids, fps)
