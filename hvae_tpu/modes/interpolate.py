"""`--mode=interpolate`: pictures between two pictures of the user, through latent variables."""

from collections.abc import Callable
import dataclasses
from pathlib import Path

import jax
import ml_collections
import numpy as np

from hvae_tpu import generation
from hvae_tpu.errors import UserError
from hvae_tpu.figures import films, images, sheets
from hvae_tpu.generation import picture_files
from hvae_tpu.generation.paths import PATHS
from hvae_tpu.modes import loaded_run
from hvae_tpu.settings import setting

FOLDERS = ('interpolate',)
REPORTED = True


@dataclasses.dataclass(frozen=True)
class Options(loaded_run.PictureOptions):
  """Options of `--mode=interpolate`."""

  images: str = setting('')  # two picture files, '(A.png,B.png)'
  # cut out the central squares of the files, and resize them to the model's size
  resize: bool = setting(False)
  num: int = setting(8, least=1)  # points between the two pictures
  paths: tuple[str, ...] = setting(('linear', 'spherical'), choices=tuple(PATHS))  # one or both
  combine: bool = setting(True)  # also mix coarse groups of one with fine groups of the other
  columns: int = setting(12, least=1)  # columns of the grid of combinations
  fps: float = setting(8.0, above=0)  # frames per second of the animations


@loaded_run.interruptible
def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  raise_if_interrupted: Callable[[], None],
) -> None:
  """Writes below `<run>/interpolate/<first>-<second>-<step>-<weights>/`.

  `strip.png` has a row per path between the two pictures, and `<path>.gif` animates it.
  `combine.png` has coarse groups of one picture with fine groups of the other, by their number.

  Raises:
    UserError: no such checkpoint, a file that is no picture of the model's size, an unknown path.
  """
  options = loaded_run.read_options(Options, config, 'interpolate')
  names = _read_names(options.images)
  loaded = loaded_run.load_run(config, workdir, checkpoint, 'interpolate', generation.NEEDS)
  model, state = loaded_run.model_for_sampling(loaded, options, 1.0)
  size, channels = model.image_size, model.image_channels
  ends = np.stack([picture_files.read(name, size, channels, options.resize) for name in names])
  arguments = model, loaded.params, state, ends
  strips, combinations = {}, None
  for path in options.paths:
    raise_if_interrupted()
    strips[path] = generation.interpolate(*arguments, num=options.num, path=path, seed=options.seed)
  raise_if_interrupted()
  if options.combine:
    combinations = generation.combine(*arguments, seed=options.seed)
  if jax.process_index() == 0:
    stems = '-'.join(Path(name).stem for name in names)
    folder = loaded.workdir / 'interpolate' / f'{stems}-{loaded.checkpoint_tag}'
    if strips:
      _store_strips(folder, ends, strips, options.fps)
    if combinations is not None:
      _store_combinations(folder, combinations, options.columns)
    print(f'stored in {folder}')


def _read_names(text: str) -> list[str]:
  """Splits '(A.png,B.png)' into the two names; brackets and quotes may be left out."""
  names = [name.strip(' ()"\'') for name in text.split(',')]
  if len(names) != 2 or not all(names):
    raise UserError(
      f"config.interpolate.images={text!r} must name two picture files, as '(A.png,B.png)'"
    )
  return names


def _store_strips(
  folder: Path, ends: np.ndarray, strips: dict[str, np.ndarray], fps: float
) -> None:
  """Writes the rows of pictures between the two ends, and an animation of each."""
  rows = [np.concatenate([ends[:1], pictures, ends[1:]]) for pictures in strips.values()]
  inner = len(rows[0]) - 4
  shares = [f'{i / (inner + 1):.2f}' for i in range(inner + 2)]
  heads = ['first', *shares, 'second']
  images.save_png(folder / 'strip.png', sheets.sheet(rows, list(strips), heads=heads))
  for path, pictures in strips.items():
    frames = sheets.there_and_back(sheets.enlarged(pictures))
    films.save_gif(folder / f'{path}.gif', frames, fps)


def _store_combinations(folder: Path, combinations: np.ndarray, columns: int) -> None:
  """Writes bands of two rows, for at most `columns` cuts side by side."""
  cuts = combinations.shape[1]
  rows, names, captions = [], [], []
  for start in range(0, cuts, columns):
    part = range(start, min(start + columns, cuts))
    for row, name in zip(
      combinations, ('coarse of the first', 'coarse of the second'), strict=True
    ):
      rows.append(row[part.start : part.stop])
      names.append(name)
      captions.append([f'{k} of {cuts - 1}' for k in part])
  images.save_png(folder / 'combine.png', sheets.sheet(rows, names, captions))
