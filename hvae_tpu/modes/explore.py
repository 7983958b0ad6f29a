"""`--mode=explore`: what every group of latent variables does to samples."""

from collections.abc import Callable
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


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Writes below `<run>/explore/<step>-<weights>/`. Returns the exit code.

  `group-<number>.png` and `.gif`, a sample and its variations a row; `contact.png`, the first
  row of every group below each other. With position 'each' `sweep-<number>.png` and `.gif` instead,
  the group's map of positions.

  Raises:
    UserError: no such checkpoint, group or position, or a setting out of range.
  """
  options = config.explore
  for key, least in (('rows', 1), ('num', 1), ('noise_std', 0)):
    if options[key] < least:
      raise UserError(f'config.explore.{key}={options[key]} must be at least {least}')
  position = _position(options.position)
  trained = loaded_run.open_trained(config, workdir, checkpoint, '--mode=explore', generation.NEEDS)
  model = trained.run.model
  for group in options.groups:
    programs.check_group(model, group, 'config.explore.groups')
  groups = tuple(options.groups) or tuple(range(len(model.level_names)))
  temperature = temperatures.per_level_from_tuple(
    model, options.temperature, 'config.explore.temperature'
  )
  model, state = loaded_run.prepared(trained, options, temperature)
  draw = dict(noise_std=options.noise_std, temperature=temperature, seed=options.seed)
  if position != 'each':
    draw |= dict(rows=options.rows, num=options.num, position=position)

  def work(check: Callable[[], None]) -> int:
    found = {}
    for group in loaded_run.shown(iter(groups), len(groups), 'group'):
      check()
      one = generation.sweep if position == 'each' else generation.vary
      found[group] = one(model, trained.params, state, group, **draw)
    if jax.process_index() == 0:
      folder = trained.run.workdir / 'explore' / trained.stem
      _store(folder, found, model.level_names, position, options)
      print(f'{len(groups)} of {len(model.level_names)} groups; stored in {folder}')
    return 0

  return loaded_run.interruptible(work)


def _position(text: str) -> Any:
  """'each', None for 'all', or (row, column)."""
  if match := re.fullmatch(r'\(?(\d+), *(\d+)\)?', text):
    return int(match[1]), int(match[2])
  if text not in ('all', 'each'):
    raise UserError(
      f"config.explore.position={text!r} must be 'all', 'each', or one as 'row,column'"
    )
  return None if text == 'all' else text


def _store(
  folder: Path,
  found: dict[int, np.ndarray],
  names: tuple[str, ...],
  position: Any,
  options: ml_collections.ConfigDict,
) -> None:
  kind = 'sweep' if position == 'each' else 'group'
  heads = ['sample', *(f'variation {i}' for i in range(1, 1 + options.num))]
  for group, pictures in found.items():
    stem = folder / f'{kind}-{group:02d}'
    shown = pictures
    if options.differences and kind == 'group':
      shown = variation.differences(pictures)
    words = () if kind == 'sweep' else heads
    images.save_png(stem.with_suffix('.png'), sheets.sheet(list(shown), heads=words))
    # Frames of all rows side by side; of a sweep, one position after the other.
    one_by_one = pictures.reshape(-1, 1, *pictures.shape[2:])
    frames = pictures.swapaxes(0, 1) if kind == 'group' else one_by_one
    frames = np.stack([images.grid(sheets.enlarged(frame)) for frame in frames])
    films.save_gif(stem.with_suffix('.gif'), frames, options.fps)
  if kind == 'group':
    rows = [found[group][0] for group in found]
    labels = [names[group] for group in found]
    images.save_png(folder / 'contact.png', sheets.sheet(rows, labels, heads=heads))
