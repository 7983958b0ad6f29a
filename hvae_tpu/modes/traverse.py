"""`--mode=traverse`: what the most active dimensions of slots look like, as animations."""

from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.evals import traversals
from hvae_tpu.figures import films, images
from hvae_tpu.modes import loaded_run, scenes
from hvae_tpu.runs import slot_statistics
from hvae_tpu.storage import files
from hvae_tpu.training import setup


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Writes `<run>/traverse/<view>-<step>-<weights>-<scene>-slot<k>*`. Returns the exit code.

  `-rank<r>-dim<d>.gif`, a dimension from its lowest to its highest value, by rank of activeness;
  `.png`, all of them, a row each.

  Raises:
    UserError: no such checkpoint or view, a model without slots, no `--mode=disentangle` of these
      weights, or an option out of range.
  """
  options = config.traverse
  trained = loaded_run.open_trained(config, workdir, checkpoint, '--mode=traverse', scenes.NEEDS)
  known = slot_statistics.load(trained, config)
  for key in ('num_scenes', 'num_dims', 'frames'):
    if options[key] < 1:
      raise UserError(f'config.traverse.{key}={options[key]} must be at least 1')
  values = traversals.steps(traversals.limits(known['range'], options.limits), options.frames)
  dims = np.argsort(-known['activeness'].mean(0))[: options.num_dims]
  dataset = setup.open_data(config)
  view = setup.view_name(config, options.split)
  folder = trained.run.workdir / 'traverse'
  sweep = traversals.sweep(trained.run.model)
  paint = jax.jit(lambda *arguments: sweep(*arguments)[0])

  def work(check: Callable[[], None]) -> int:
    for scene in scenes.read(
      trained, dataset, config, options.split, options.num_scenes, options.seed, check
    ):
      slots = scene.found.slots[-1]
      for slot in range(len(slots)):
        check()
        pictures = sharding.to_host(paint(trained.params, slots, np.int32(slot), values))[dims]
        stem = f'{view.replace("/", "-")}-{trained.stem}-{scene.number:04d}-slot{slot}'
        if jax.process_index() == 0:
          _store(folder, stem, pictures, dims, options.fps)
    loaded_run.say(f'stored in {folder}')
    return 0

  return loaded_run.interruptible(work)


def _store(folder: Path, stem: str, pictures: np.ndarray, dims: np.ndarray, fps: float) -> None:
  """Pictures [n, V, H, W, 3] of n dimensions, in [0, 1]."""
  pictures = np.round(255 * np.clip(pictures, 0, 1)).astype(np.uint8)
  for rank, (dim, frames) in enumerate(zip(dims, pictures, strict=True)):
    framed = np.pad(frames, ((0, 0), (2, 2), (2, 0), (0, 0)))
    with files.replacing(folder / f'{stem}-rank{rank}-dim{dim}.gif') as partial:
      partial.write_bytes(films.encode_gif(framed, fps))
  rows = np.concatenate([images.framed_row(frames) for frames in pictures])
  images.save_png(folder / f'{stem}.png', rows)
