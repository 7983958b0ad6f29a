"""`--mode=traverse`: animations of the most active dimensions of slots."""

from collections.abc import Callable
import dataclasses
from pathlib import Path

import jax
import ml_collections
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.evals import traversals
from hvae_tpu.figures import films, images
from hvae_tpu.modes import loaded_run, scenes
from hvae_tpu.runs import weight_statistics
from hvae_tpu.settings import setting
from hvae_tpu.storage import files
from hvae_tpu.training import setup

FOLDERS = ('traverse',)
REPORTED = True


@dataclasses.dataclass(frozen=True)
class Options(scenes.SceneOptions):
  """Options of `--mode=traverse`."""

  num_scenes: int = setting(1, least=1)  # first scenes of the split
  num_dims: int = setting(10, least=1)  # number of most active dimensions
  frames: int = setting(8, least=1)  # frames of an animation
  fps: float = setting(4.0, above=0)  # frames per second of the animations
  # values to show: 'range' (the measured range) or 'reference' (as in EfficientMORL's code)
  limits: str = setting('range', choices=traversals.LIMITS)


@loaded_run.interruptible
def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  raise_if_interrupted: Callable[[], None],
) -> None:
  """Writes `<run>/traverse/<view>-<step>-<weights>-<scene>-slot<k>*`.

  `-rank<r>-dim<d>.gif` shows a dimension from its lowest to its highest value; `r` is its rank of
  activeness. `.png` has a row for each dimension.

  Raises:
    UserError: no such checkpoint or view, a model without slots, no `--mode=disentangle` of these
      weights, or an option out of range.
  """
  options = loaded_run.read_options(Options, config, 'traverse')
  loaded = loaded_run.load_run(config, workdir, checkpoint, 'traverse', scenes.NEEDS)
  names = ('range', 'activeness')
  measured = weight_statistics.load(loaded, 'disentangle', names, '--mode=traverse')
  limits = traversals.limits(measured['range'], options.limits)
  values = traversals.steps(limits, options.frames)
  dims = np.argsort(-measured['activeness'].mean(0))[: options.num_dims]
  dataset = setup.open_data(config)
  tag = loaded.view_tag(setup.view_name(config, options.split))
  folder = loaded.workdir / 'traverse'
  sweep = traversals.sweep(loaded.model)
  paint = jax.jit(lambda *arguments: sweep(*arguments)[0])
  for scene in scenes.read(
    loaded, dataset, config, options, options.num_scenes, raise_if_interrupted
  ):
    slots = scene.segments.slots[-1]
    for slot in range(len(slots)):
      raise_if_interrupted()
      pictures = sharding.to_host(paint(loaded.params, slots, np.int32(slot), values))[dims]
      if jax.process_index() == 0:
        _store(folder, f'{tag}-{scene.number:04d}-slot{slot}', pictures, dims, options.fps)
  loaded_run.print_once(f'stored in {folder}')


def _store(folder: Path, stem: str, pictures: np.ndarray, dims: np.ndarray, fps: float) -> None:
  """Writes pictures [n, V, H, W, 3] of n dimensions, in [0, 1]."""
  pictures = np.round(255 * np.clip(pictures, 0, 1)).astype(np.uint8)
  for rank, (dim, frames) in enumerate(zip(dims, pictures, strict=True)):
    framed = np.pad(frames, ((0, 0), (2, 2), (2, 0), (0, 0)))
    with files.replacing(folder / f'{stem}-rank{rank}-dim{dim}.gif') as partial:
      partial.write_bytes(films.encode_gif(framed, fps))
  rows = np.concatenate([images.framed_row(frames) for frames in pictures])
  images.save_png(folder / f'{stem}.png', rows)
