"""`--mode=eval`: numbers and pictures of the evaluations `config.evals.names` on a view."""

from collections.abc import Callable, Iterator
import math
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from hvae_tpu import data, evals
from hvae_tpu.devices import sharding
from hvae_tpu.figures import films, images
from hvae_tpu.importers import import_report
from hvae_tpu.modes import loaded_run
from hvae_tpu.runs import restore
from hvae_tpu.storage import files
from hvae_tpu.training import setup

FOLDERS = ('eval',)
IN_BUCKETS = True
REPORTED = True


@loaded_run.interruptible
def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  raise_if_interrupted: Callable[[], None],
) -> None:
  """Writes `<run>/eval/<view>-<step>-<weights>.json` and pictures beside it.

  Raises:
    UserError: no such checkpoint, view or evaluation.
  """
  evals.check(config.evals)
  weights = config.evals.weights
  run = restore.open_run(workdir, checkpoint, config, evals.WEIGHTS[weights])
  dataset = setup.open_data(config)
  view = setup.view_name(config, config.evals.split)
  step = run.state.step
  size = setup.num_examples(dataset, config, view)
  loaded_run.print_once(
    f'{view} of {config.data.name}, {size:,} examples, step {step:,}, {weights} weights',
    *import_report.describe(run.meta.get('import')),
  )
  numbers, pictures = _evaluate(config, run, dataset, raise_if_interrupted)
  if jax.process_index() == 0:
    plain = {name: np.asarray(value).tolist() for name, value in numbers.items()}
    about = {'run': str(run.workdir), 'step': step, 'view': view, 'weights': weights}
    stem = f'{view.replace("/", "-")}-{step}-{weights}'
    _store(run.workdir / 'eval', stem, about | {'results': plain}, pictures)
    print(_summary(numbers, config.evals.published_bpd))
    print(f'stored in {run.workdir / "eval"}')


def _evaluate(
  config: ml_collections.ConfigDict,
  run: restore.Run,
  dataset: data.Dataset,
  raise_if_interrupted: Callable[[], None],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Runs all evaluations; returns numbers and pictures by `<evaluation>/<name>`."""
  default_split = config.evals.split
  if config.open_loop.batch_size and 'open_loop' in config.evals.names:
    sharding.check_batch_size(config.open_loop.batch_size, run.mesh, 'open_loop.batch_size')
  batches = setup.eval_batches(dataset, config, run.mesh, default_split, raise_if_interrupted)

  def with_progress(
    split: str | None = None,
    seq_len: int = 0,
    batch_size: int = 0,
    interleave_videos: bool = False,
  ) -> Iterator[dict[str, jax.Array]]:
    view = setup.view_name(config, split or default_split)
    size = setup.num_examples(dataset, config, view, seq_len)
    total = -(-size // (batch_size or config.evals.batch_size))
    return loaded_run.with_progress(batches(split, seq_len, batch_size, interleave_videos), total)

  numbers, pictures = {}, {}
  for name in config.evals.names:
    values, where = _options(config, name)
    evaluate = evals.create(
      name, config.evals, run.model, with_progress, config.seed, values=values, where=where
    )
    for key, value in evaluate(run.state).items():
      if np.ndim(value) == 2:
        continue  # values of a histogram, which only TensorBoard shows
      is_picture = getattr(value, 'dtype', None) == np.uint8
      (pictures if is_picture else numbers)[f'{name}/{key}'] = value
  return numbers, pictures


def _options(config: ml_collections.ConfigDict, name: str) -> tuple[dict[str, Any], str]:
  """Returns the options of an evaluation, and their path in the config.

  The limits of evaluations during training do not count, but `config.evals.max_batches`. Videos are
  predicted as by `--mode=open_loop`.
  """
  values = {key: value for key, value in config.evals[name].items() if key != 'every'}
  if name == 'open_loop':
    return {key: config.open_loop[key] for key in values}, 'config.open_loop'
  if 'max_batches' in values:
    values['max_batches'] = config.evals.max_batches
  return values, f'config.evals.{name}'


def _store(directory: Path, stem: str, record: dict, pictures: dict) -> None:
  """Writes numbers as JSON, and every picture to a file of its name."""
  files.save_json(directory / f'{stem}.json', record)
  for name, picture in pictures.items():
    path = f'{directory}/{stem}-{name.replace("/", "-")}'
    if picture.ndim == 5:
      films.save_gif(f'{path}.gif', films.side_by_side(picture))
    else:
      images.save_png(f'{path}.png', picture)


def _summary(numbers: dict, published_bpd: float | None) -> str:
  """Returns a line for each number, with its unit, and the numbers to compare with."""
  lines = []
  for name, value in numbers.items():
    if not np.ndim(value):
      lines.append(f'  {name:28} {value:12.5g}  {_unit(name)}'.rstrip())
  baseline, nats = numbers.get('bernoulli_baseline/nll'), numbers.get('elbo/neg_elbo')
  if baseline and nats and math.isfinite(nats):
    lines.append(f'  the model needs {nats / baseline:.3f} of the nats of the factorised baseline')
  if published_bpd is not None:
    lines.append(f'  published: {published_bpd:g} bits/dim')
  return '\n'.join(lines)


def _unit(name: str) -> str:
  """Returns the unit of a number, in words; '' where it has none."""
  name = name.removesuffix('_raw')
  if name.endswith('bpd'):
    return 'bits/dim'
  if name.endswith('_per_frame'):
    return 'nats per frame'
  if name.endswith('psnr'):
    return 'dB'
  meanings = {
    'neg_elbo': 'nats per example (rate + distortion)',
    'nll': 'nats per example',
    'kl': 'nats per example (rate)',
  }
  if name == 'elbo/nll':
    return 'nats per example (distortion)'
  return meanings.get(name.rpartition('/')[2], '')
