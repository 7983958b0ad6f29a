"""`--mode=open_loop`: predictions of videos from their first frames, with scores.

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
import dataclasses
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.evals import open_loop
from hvae_tpu.evals.open_loop import Outcome
from hvae_tpu.figures import film_strips, images, plots
from hvae_tpu.figures.films import save_gif, side_by_side
from hvae_tpu.metrics.score_curves import Moments, moments
from hvae_tpu.modes import loaded_run
from hvae_tpu.settings import setting
from hvae_tpu.storage import files, folders
from hvae_tpu.training import setup

FOLDERS = ('open_loop',)
REPORTED = True
BEST = {'ssim': 'SSIM', 'psnr': 'PSNR (dB)'}  # scores that choose the best of several samples
Curves = dict[str, np.ndarray]  # by score: [T] of an example, [examples, T] of all


@dataclasses.dataclass(frozen=True)
class Options(open_loop.Options):
  """Options of `--mode=open_loop`: those of evaluation `open_loop`, and a few more."""

  num_examples: int = setting(100, least=1)  # clips; the first clip of every video comes first
  split: str = setting('test')  # videos to predict: train, valid, test, or a view's name
  grids: bool = setting(True)  # also store pictures of the frames
  # leave out the last strip of each picture, as the reference does
  grid_strict_reference: bool = setting(False)
  seed: int = setting(0, least=0)  # seed of all noise


STORED = [field.name for field in dataclasses.fields(open_loop.Options)]  # in summary.json


@loaded_run.interruptible
def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  raise_if_interrupted: Callable[[], None],
) -> None:
  """Predicts `config.open_loop.num_examples` sequences.

  Raises:
    UserError: no such checkpoint or view, a model that predicts nothing, or unfit options.
  """
  options = loaded_run.read_options(Options, config, 'open_loop')
  loaded = loaded_run.load_run(config, workdir, checkpoint, 'open_loop', open_loop.NEEDS)
  dataset = setup.open_data(config)
  if options.batch_size:
    sharding.check_batch_size(options.batch_size, loaded.mesh, 'open_loop.batch_size')
  predict = open_loop.predictor(loaded.model, options, 'config.open_loop')
  view = setup.view_name(config, options.split)
  directory = loaded.workdir / 'open_loop' / loaded.view_tag(view)
  about = loaded.about(view)
  about['options'] = {name: getattr(options, name) for name in ('seed', *STORED)}
  batches = setup.eval_batches(dataset, config, loaded.mesh, options.split, raise_if_interrupted)(
    seq_len=options.seq_len, batch_size=options.batch_size, interleave_videos=True
  )
  key = jax.random.key(options.seed)
  outcomes = predict(loaded.params, loaded.model_state, batches, key)
  if jax.process_index():
    for _ in outcomes:
      pass
    return
  earlier = ', in place of earlier results' if directory.exists() else ''
  with folders.replacing(directory) as folder:
    _store(folder, outcomes, about, options)
  print(f'stored in {directory}{earlier}')


def _store(
  folder: Path, outcomes: Iterator[Outcome], about: dict[str, Any], options: Options
) -> None:
  """Writes the files that the head of this module lists, and prints the scores."""
  curves, films = [], []
  for i, outcome in enumerate(outcomes):
    _store_example(folder, i, outcome, options)
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
      'results': {name: _plain(scores) for name, scores in results.items()},
      'examples': [
        {name: _plain(moments(values)) for name, values in curve.items()} for curve in curves
      ],
    },
  )
  for name, scores in results.items():
    left_out = f'  ({scores.left_out} infinite ones left out)' if scores.left_out else ''
    print(f'  {name:22} {scores.mean:9.4f}{left_out}')


def _plain(scores: Moments) -> dict[str, float]:
  """Returns the moments of all values as plain numbers, for JSON."""
  return {name: value.item() for name, value in scores._asdict().items()}


def _describe(curves: Curves) -> str:
  """Returns the means over time of the best sample and of the baseline, as text."""
  mean = {name: moments(values).mean for name, values in curves.items()}
  return ', '.join(
    f'{name} {mean[name]:.4f} (copy of the last frame {mean[f"copy_last_{name}"]:.4f})'
    for name in BEST
  )


def _store_example(folder: Path, number: int, outcome: Outcome, options: Options) -> None:
  """Writes frames as arrays, and as pictures with `options.grids`."""
  samples = {'random_sample_1': 0}
  if len(outcome.samples) > 1:
    samples |= {'random_sample_2': 1}
    samples |= {f'best_{name}_sample': outcome.best(name) for name in BEST}
  clips = {f'sample{number}_gt/gt_ctx': outcome.context, f'sample{number}_gt/gt_pred': outcome.true}
  for name, index in samples.items():
    clips[f'sample{number}/{name}'] = film_strips.to_uint8(outcome.samples[index])
  for name, frames in clips.items():
    files.save_arrays(folder / f'{name}.npz', {'arr_0': frames}, compressed=True)
    if options.grids:
      strips = film_strips.strips(frames, options.grid_strict_reference)
      images.save_png(folder / f'{name}.png', strips)


def _store_curves(folder: Path, curves: Curves) -> None:
  """Writes means and population deviations over the examples: arrays, pictures and a table."""
  statistics = {name: moments(values, axis=0) for name, values in curves.items()}
  columns = {}
  for name, of_frames in statistics.items():
    columns |= {f'{name}_mean': of_frames.mean, f'{name}_stddev': of_frames.deviation}
    if name.endswith('psnr'):
      columns[f'{name}_left_out'] = of_frames.left_out
  for name, label in BEST.items():
    for part in ('mean', 'stddev'):
      arrays = {'arr_0': columns[f'{name}_{part}']}
      files.save_arrays(folder / f'{name}_{part}.npz', arrays)
    bands = {'best sample': statistics[name][:2], 'last frame': statistics[f'copy_last_{name}'][:2]}
    plots.save_bands(folder / f'{name}_range.png', bands, 'predicted frame', label)
  rows = zip(*(column.tolist() for column in columns.values()), strict=True)
  table = [{'frame': i, **dict(zip(columns, row, strict=True))} for i, row in enumerate(rows)]
  files.save_csv(folder / 'per_frame.csv', table)
