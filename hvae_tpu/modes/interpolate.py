"""`--mode=interpolate`: from one picture of the user to another, through their latent variables."""

from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections
import numpy as np

from hvae_tpu import generation
from hvae_tpu.errors import UserError
from hvae_tpu.figures import films, sheets
from hvae_tpu.figures.images import save_png
from hvae_tpu.generation import paths, picture_files
from hvae_tpu.modes import loaded_run


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Writes below `<run>/interpolate/<first>-<second>-<step>-<weights>/`. Returns the exit code.

  `strip.png`, a row per path between the two pictures; `<path>.gif`; `combine.png`, coarse groups
  of the one with fine groups of the other, by the number of coarse groups.

  Raises:
    UserError: no such checkpoint, a file that is no picture of the model's size, an unknown path.
  """
  options = config.interpolate
  names = _names(options.images)
  if options.num < 1:
    raise UserError(f'config.interpolate.num={options.num} must be at least 1')
  if unknown := [path for path in options.paths if path not in paths.PATHS]:
    raise UserError(
      f'config.interpolate.paths has {unknown[0]!r}; expected some of {", ".join(paths.PATHS)}'
    )
  trained = loaded_run.open_trained(
    config, workdir, checkpoint, '--mode=interpolate', generation.NEEDS
  )
  model, state = loaded_run.prepared(trained, options, 1.0)
  size, channels = model.image_size, model.image_channels
  images = np.stack([picture_files.read(name, size, channels, options.resize) for name in names])

  def work(check: Callable[[], None]) -> int:
    args = model, trained.params, state, images
    found = {}
    for path in options.paths:
      check()
      found[path] = generation.interpolate(*args, num=options.num, path=path, seed=options.seed)
    check()
    mixed = generation.combine(*args, seed=options.seed) if options.combine else None
    if jax.process_index() == 0:
      first, second = (Path(name).stem for name in names)
      folder = trained.run.workdir / 'interpolate' / f'{first}-{second}-{trained.stem}'
      _store(folder, images, found, options.fps)
      if mixed is not None:
        _store_mixed(folder, mixed, options.columns)
      print(f'stored in {folder}')
    return 0

  return loaded_run.interruptible(work)


def _names(text: str) -> list[str]:
  """'(A.png,B.png)' -> the two names; brackets and quotes may be left out."""
  names = [name.strip(' ()"\'') for name in text.split(',')]
  if len(names) != 2 or not all(names):
    raise UserError(
      f"config.interpolate.images={text!r} must name two picture files, as '(A.png,B.png)'"
    )
  return names


def _store(folder: Path, images: np.ndarray, found: dict[str, np.ndarray], fps: float) -> None:
  ends = images[:1], images[1:]
  rows = [np.concatenate([ends[0], pictures, ends[1]]) for pictures in found.values()]
  if not rows:
    return
  inner = len(rows[0]) - 4
  shares = [f'{i / (inner + 1):.2f}' for i in range(inner + 2)]
  heads = ['first', *shares, 'second']
  save_png(folder / 'strip.png', sheets.sheet(rows, list(found), heads=heads))
  for path, pictures in found.items():
    frames = sheets.there_and_back(sheets.enlarged(pictures))
    films.save_gif(folder / f'{path}.gif', frames, fps)


def _store_mixed(folder: Path, mixed: np.ndarray, columns: int) -> None:
  """A band of two rows for so many cuts side by side."""
  cuts = mixed.shape[1]
  rows, names, captions = [], [], []
  for start in range(0, cuts, columns):
    part = range(start, min(start + columns, cuts))
    for row, name in zip(mixed, ('coarse of the first', 'coarse of the second'), strict=True):
      rows.append(row[part.start : part.stop])
      names.append(name)
      captions.append([f'{k} of {cuts - 1}' for k in part])
  save_png(folder / 'combine.png', sheets.sheet(rows, names, captions))
