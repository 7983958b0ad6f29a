"""`--mode=open_loop`: predicts videos from their first frames, and stores what came out.

In `<run>/open_loop/<view>-<step>-<weights>/`, with the names of the reference:

sample{i}_gt/     gt_ctx and gt_pred: the true frames, as .npz (key `arr_0`) and as a picture
sample{i}/        random_sample_1; of several predictions also random_sample_2, best_ssim_sample and
                  best_psnr_sample
films.gif         target, best prediction and error of the first examples
{ssim,psnr}_*     mean and deviation over the examples' best samples (.npz), and their curves
per_frame.csv     all of these numbers, and those of the last context frame shown on and on
"""

import csv
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from hvae_tpu import evals, runs, sharding, writing
from hvae_tpu.errors import UserError
from hvae_tpu.evals import film_strips, open_loop
from hvae_tpu.evals.open_loop import Outcome
from hvae_tpu.importers import verdict
from hvae_tpu.state import eval_params

FILMED = 8  # examples in films.gif
BEST = ('ssim', 'psnr')  # what the best of several samples is chosen by
Curves = dict[str, list[np.ndarray]]  # by score: of every example [T]


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Predicts `config.open_loop.num_examples` sequences. Returns the exit code.

  Raises:
    UserError: no such checkpoint or view, a model that predicts nothing, or unfit lengths.
  """
  section = config.open_loop.to_dict()
  seed, split, strict = (section.pop(k) for k in ('seed', 'split', 'grid_strict_reference'))
  grids, sizes = section.pop('grids'), {k: section.pop(k) for k in ('seq_len', 'batch_size')}
  options = open_loop.Options(**section)
  evals.check_weights(config.evals.weights)
  weights = evals.WEIGHTS[config.evals.weights][0]
  opened = runs.open_run(workdir, checkpoint, config, (weights,))
  for method in open_loop.NEEDS:
    if not hasattr(opened.model, method):
      raise UserError(f'--mode=open_loop needs {method}, which {config.model.name} lacks')
  dataset = runs.open_data(config)
  if sizes['batch_size']:
    sharding.check_batch_size(sizes['batch_size'], opened.mesh, 'open_loop.batch_size')
  batches = runs.eval_batches(dataset, config, opened.mesh, split)(**sizes, spread=True)
  predict = open_loop.predictor(opened.model, options)
  params, state = eval_params(opened.state, weights), opened.state.model_state
  view = runs.view_of(config, split).replace('/', '-')
  directory = opened.workdir / 'open_loop' / f'{view}-{opened.state.step}-{weights}'
  curves, films, first = {}, [], jax.process_index() == 0
  found = open_loop.outcomes(predict, params, state, batches, jax.random.key(seed), options)
  for i, outcome in enumerate(found):
    _gather(curves, outcome)
    if first:
      _store_example(directory, i, outcome, grids, strict)
      print(f'example {i}: {_describe(outcome)}', flush=True)
    if len(films) < FILMED:
      films.append(_film(outcome))
  if first:
    for line in verdict.describe(opened.meta.get('import')):
      print(line)
    writing.save_gif(directory / 'films.gif', writing.side_by_side(np.stack(films)))
    _store_curves(directory, curves)
    print('\n'.join(f'  {name:22} {np.mean(values):9.4f}' for name, values in curves.items()))
    print(f'stored in {directory}')
  return 0


def _gather(curves: Curves, outcome: Outcome) -> None:
  for name, values in outcome.scores.items():
    curves.setdefault(name, []).append(values[outcome.best(name)])
    curves.setdefault(f'copy_last_{name}', []).append(outcome.copied[name])


def _describe(outcome: Outcome) -> str:
  """Means over time of the best sample and of the baseline."""
  return ', '.join(
    f'{name} {outcome.scores[name][outcome.best(name)].mean():.4f} '
    f'(copy of the last frame {outcome.copied[name].mean():.4f})'
    for name in BEST
  )


def _film(outcome: Outcome) -> np.ndarray:
  true = outcome.true[np.newaxis].astype(np.float32) / 255
  return film_strips.compared(true, outcome.samples[outcome.best('ssim')][np.newaxis])[0]


def _store_example(
  directory: Path, number: int, outcome: Outcome, grids: bool, strict: bool
) -> None:
  """Frames as arrays, and as pictures where `grids`."""
  samples = {'random_sample_1': 0}
  if len(outcome.samples) > 1:
    samples |= {'random_sample_2': 1}
    samples |= {f'best_{name}_sample': outcome.best(name) for name in BEST}
  files = {f'sample{number}_gt/gt_ctx': outcome.context, f'sample{number}_gt/gt_pred': outcome.true}
  for name, index in samples.items():
    files[f'sample{number}/{name}'] = film_strips.to_uint8(outcome.samples[index])
  for name, frames in files.items():
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path.with_suffix('.npz'), frames)
    if grids and len(frames):
      writing.save_png(path.with_suffix('.png'), film_strips.strips(frames, strict))


def _store_curves(directory: Path, curves: Curves) -> None:
  """Means and population deviations over the examples: arrays, pictures and a table."""
  summary = {}
  for name, values in curves.items():
    summary[f'{name}_mean'], summary[f'{name}_stddev'] = np.mean(values, 0), np.std(values, 0)
  for name in BEST:
    for part in ('mean', 'stddev'):
      np.savez(directory / f'{name}_{part}.npz', summary[f'{name}_{part}'])
    _plot(directory / f'{name}_range.png', name, summary)
  with open(directory / 'per_frame.csv', 'w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['frame', *summary])
    rows = np.stack(list(summary.values()), axis=1)
    writer.writerows([i, *row.tolist()] for i, row in enumerate(rows))


def _plot(path: Path, name: str, summary: dict[str, Any]) -> None:
  """Mean and deviation of a score over time, beside its baseline."""
  from matplotlib.figure import Figure  # slow to import

  figure = Figure()
  axes = figure.subplots()
  for key, colour, label in (('', 'blue', 'best sample'), ('copy_last_', 'grey', 'last frame')):
    mean, std = summary[f'{key}{name}_mean'], summary[f'{key}{name}_stddev']
    frames = np.arange(len(mean))
    axes.plot(frames, mean, color=colour, label=label)
    axes.fill_between(frames, mean - std, mean + std, color=colour, alpha=0.4)
  axes.grid(axis='y')
  axes.set(xlabel='predicted frame', ylabel={'ssim': 'SSIM', 'psnr': 'PSNR (dB)'}[name])
  axes.legend()
  figure.savefig(path)
