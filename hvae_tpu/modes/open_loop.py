"""`--mode=open_loop`: predicts videos from their first frames, and stores what came out.

In `<run>/open_loop/<view>-<step>-<weights>/`, with the names of the reference:

sample{i}_gt/     gt_ctx and gt_pred: the true frames, as .npz (key `arr_0`) and as a picture
sample{i}/        random_sample_1; of several predictions also random_sample_2, best_ssim_sample and
                  best_psnr_sample
films.gif         target, best prediction and error of the first examples
{ssim,psnr}_*     mean and deviation over the examples' best samples (.npz), and their curves
per_frame.csv     all of these numbers, and those of the last context frame shown on and on
summary.json      the options, the means over everything, and those of every example

An earlier folder of this name is replaced as a whole. A PSNR is infinite where a channel of two
frames is equal: no mean and no deviation counts it; `*_left_out` says how often (`score_curves`).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from hvae_tpu import settings
from hvae_tpu.devices import sharding
from hvae_tpu.evals import open_loop
from hvae_tpu.evals.open_loop import Outcome
from hvae_tpu.figures import film_strips, images, plots
from hvae_tpu.figures.films import save_gif, side_by_side
from hvae_tpu.metrics.score_curves import Moments, moments
from hvae_tpu.modes import loaded_run
from hvae_tpu.storage import files, folders
from hvae_tpu.training import setup

BEST = {'ssim': 'SSIM', 'psnr': 'PSNR (dB)'}  # what the best of several samples is chosen by
Curves = dict[str, np.ndarray]  # by score: [T] of an example, [examples, T] of all


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Predicts `config.open_loop.num_examples` sequences. Returns the exit code.

  Raises:
    UserError: no such checkpoint or view, a model that predicts nothing, or unfit options.
  """
  section = config.open_loop.to_dict()
  seed, split, grids, strict = (
    section.pop(k) for k in ('seed', 'split', 'grids', 'grid_strict_reference')
  )
  options = settings.checked(open_loop.Options, section, 'config.open_loop')
  trained = loaded_run.open_trained(
    config, workdir, checkpoint, '--mode=open_loop', open_loop.NEEDS
  )
  mesh, state = trained.run.mesh, trained.run.state
  dataset = setup.open_data(config)
  if options.batch_size:
    sharding.check_batch_size(options.batch_size, mesh, 'open_loop.batch_size')
  predict = open_loop.predictor(trained.run.model, options, 'config.open_loop')
  view = setup.view_name(config, split)
  directory = trained.run.workdir / 'open_loop' / f'{view.replace("/", "-")}-{trained.stem}'
  about = {'origin': trained.origin(), 'data': config.data.name, 'view': view}
  about['options'] = {'seed': seed, **section}

  def work(check: Callable[[], None]) -> int:
    batches = setup.eval_batches(dataset, config, mesh, split, check)(
      seq_len=options.seq_len, batch_size=options.batch_size, interleave_videos=True
    )
    found = predict(trained.params, state.model_state, batches, jax.random.key(seed))
    if jax.process_index():
      for _ in found:
        pass
      return 0
    earlier = ', in place of earlier results' if directory.exists() else ''
    with folders.replacing(directory) as folder:
      _store(folder, found, about, grids, strict)
    print(f'stored in {directory}{earlier}')
    return 0

  return loaded_run.interruptible(work)


def _store(
  folder: Path, found: Iterator[Outcome], about: dict[str, Any], grids: bool, strict: bool
) -> None:
  """Writes what the head of this file tells, and prints the scores."""
  curves, films = [], []
  for i, outcome in enumerate(found):
    _store_example(folder, i, outcome, grids, strict)
    curves.append(outcome.curves())
    print(f'example {i}: {_describe(curves[-1])}', flush=True)
    if len(films) < open_loop.FILMED:
      films.append(outcome.film())
  save_gif(folder / 'films.gif', side_by_side(np.stack(films)))
  together = open_loop.gathered(curves)
  _store_curves(folder, together)
  results = {name: moments(values) for name, values in together.items()}
  files.save_json(
    folder / 'summary.json',
    {
      **about,
      'num_examples': len(curves),
      'num_frames': len(together['ssim'][0]),
      'results': {name: _plain(found) for name, found in results.items()},
      'examples': [
        {name: _plain(moments(values)) for name, values in curve.items()} for curve in curves
      ],
    },
  )
  for name, found in results.items():
    left_out = f'  ({found.left_out} infinite ones left out)' if found.left_out else ''
    print(f'  {name:22} {found.mean:9.4f}{left_out}')


def _plain(found: Moments) -> dict[str, float]:
  """Single numbers for JSON."""
  return {name: value.item() for name, value in found._asdict().items()}


def _describe(curves: Curves) -> str:
  """Means over time of the best sample and of the baseline."""
  mean = {name: moments(values).mean for name, values in curves.items()}
  return ', '.join(
    f'{name} {mean[name]:.4f} (copy of the last frame {mean[f"copy_last_{name}"]:.4f})'
    for name in BEST
  )


def _store_example(folder: Path, number: int, outcome: Outcome, grids: bool, strict: bool) -> None:
  """Frames as arrays, and as pictures where `grids`."""
  samples = {'random_sample_1': 0}
  if len(outcome.samples) > 1:
    samples |= {'random_sample_2': 1}
    samples |= {f'best_{name}_sample': outcome.best(name) for name in BEST}
  clips = {f'sample{number}_gt/gt_ctx': outcome.context, f'sample{number}_gt/gt_pred': outcome.true}
  for name, index in samples.items():
    clips[f'sample{number}/{name}'] = film_strips.to_uint8(outcome.samples[index])
  for name, frames in clips.items():
    files.save_arrays(folder / f'{name}.npz', {'arr_0': frames}, compressed=True)
    if grids:
      images.save_png(folder / f'{name}.png', film_strips.strips(frames, strict))


def _store_curves(folder: Path, curves: Curves) -> None:
  """Means and population deviations over the examples: arrays, pictures and a table."""
  found = {name: moments(values, axis=0) for name, values in curves.items()}
  columns = {}
  for name, of_frames in found.items():
    columns |= {f'{name}_mean': of_frames.mean, f'{name}_stddev': of_frames.deviation}
    if name.endswith('psnr'):
      columns[f'{name}_left_out'] = of_frames.left_out
  for name, label in BEST.items():
    for part in ('mean', 'stddev'):
      arrays = {'arr_0': columns[f'{name}_{part}']}
      files.save_arrays(folder / f'{name}_{part}.npz', arrays)
    bands = {'best sample': found[name][:2], 'last frame': found[f'copy_last_{name}'][:2]}
    plots.save_bands(folder / f'{name}_range.png', bands, 'predicted frame', label)
  rows = zip(*(column.tolist() for column in columns.values()), strict=True)
  table = [{'frame': i, **dict(zip(columns, row, strict=True))} for i, row in enumerate(rows)]
  files.save_csv(folder / 'per_frame.csv', table)
