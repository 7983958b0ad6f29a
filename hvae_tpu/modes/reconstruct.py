"""`--mode=reconstruct`: likelihood, rate, distortion and pictures, whole or with pruned latents."""

from collections.abc import Callable
import dataclasses
from pathlib import Path

import jax
import ml_collections
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.evals import reconstruction
from hvae_tpu.figures import images, plots
from hvae_tpu.modes import loaded_run, pruning
from hvae_tpu.settings import setting
from hvae_tpu.storage import files
from hvae_tpu.training import setup

FOLDERS = ('reconstruct',)
REPORTED = True
# Columns of the table, where the model reports them.
COLUMNS = ('kl', 'nll', 'neg_elbo', 'kl_bpd', 'nll_bpd', 'bpd', 'ssim')


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of `--mode=reconstruct`."""

  split: str = setting('test')  # data to reconstruct: train, valid, test, or a view's name
  # fractions of latent channels to keep, ranked by their bits; less than 1 needs div_stats
  quantiles: tuple[float, ...] = setting((1.0,), above=0, most=1)
  num_pictures: int = setting(8, least=0)  # pictures of the grid
  columns: int = setting(8, least=1)  # columns of the grid
  save_targets: bool = setting(False)  # also store the originals
  seed: int = setting(0, least=0)  # seed of the draw from the posterior


@loaded_run.interruptible
def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  raise_if_interrupted: Callable[[], None],
) -> None:
  """Writes `<run>/reconstruct/<view>-<step>-<weights>*`.

  `.csv` and `-rate-distortion.png` have a row and a point for each of
  `config.reconstruct.quantiles`. `.png` has originals above a row of reconstructions for each, and
  `.npz` the same pictures as arrays.

  Raises:
    UserError: no such checkpoint or view, a quantile that is out of range or without div_stats.
  """
  options = loaded_run.read_options(Options, config, 'reconstruct')
  _check_quantiles(options.quantiles)
  loaded = loaded_run.load_run(config, workdir, checkpoint, 'reconstruct', reconstruction.NEEDS)
  key = 'config.reconstruct.quantiles'
  masks = [pruning.variates(loaded, quantile, key) for quantile in options.quantiles]
  dataset = setup.open_data(config)
  view = setup.view_name(config, options.split)
  reconstruct = reconstruction.make(loaded.model, loaded.mesh, masks, options.num_pictures)
  batches = setup.eval_batches(dataset, config, loaded.mesh, options.split, raise_if_interrupted)()
  total = -(-dataset.size(view) // config.evals.batch_size)
  results, originals = reconstruct(
    loaded.params,
    loaded.model_state,
    loaded.step,
    loaded_run.with_progress(batches, total),
    jax.random.key(options.seed),
  )
  if jax.process_index() == 0:
    rows = [_row(*parts) for parts in zip(options.quantiles, masks, results, strict=True)]
    print(_table(rows))
    stem = loaded.view_tag(view)
    _store(loaded.workdir / 'reconstruct', stem, rows, results, originals, options)


def _check_quantiles(quantiles: tuple[float, ...]) -> None:
  """Raises UserError if there are none, or two whose results would have the same name."""
  if not quantiles:
    raise UserError('config.reconstruct.quantiles=() must not be empty; (1.0,) keeps everything')
  names = [f'{quantile:g}' for quantile in quantiles]
  if twice := sorted({name for name in names if names.count(name) > 1}):
    raise UserError(
      f'config.reconstruct.quantiles has {", ".join(twice)} more than once (to six digits); give '
      f'each quantile once'
    )


def _row(
  quantile: float, mask: np.ndarray | None, result: reconstruction.Result
) -> dict[str, float]:
  share = 1.0 if mask is None else float(mask.mean())
  numbers = {name: float(result.numbers[name]) for name in COLUMNS if name in result.numbers}
  numbers['examples'] = result.numbers['num_examples']
  return {'quantile': quantile, 'kept': share, **numbers}


def _table(rows: list[dict[str, float]]) -> str:
  """Formats rate (kl) and distortion (nll) in nats per example, then in bits/dim."""
  lines = ['  '.join(f'{name:>9}' for name in rows[0])]
  lines += ['  '.join(f'{value:>9.5g}' for value in row.values()) for row in rows]
  return '\n'.join(lines)


def _store(
  folder: Path,
  stem: str,
  rows: list[dict[str, float]],
  results: list[reconstruction.Result],
  originals: np.ndarray,
  options: Options,
) -> None:
  """Writes table, curve, and pictures if there are any."""
  files.save_csv(folder / f'{stem}.csv', rows)
  points = [(row['kl'], row['nll'], f'{row["quantile"]:g}') for row in rows]
  labels = 'rate (KL), nats per example', 'distortion (-log p), nats per example'
  plots.save_curve(folder / f'{stem}-rate-distortion.png', points, *labels, title=stem)
  columns = min(options.columns, len(originals))
  if columns:
    pictures = {f'q{row["quantile"]:g}': r.pictures for row, r in zip(rows, results, strict=True)}
    files.save_arrays(folder / f'{stem}.npz', {'originals': originals, **pictures})
    bands = [originals, *pictures.values()]
    images.save_png(folder / f'{stem}.png', images.banded(bands, columns))
    if options.save_targets:
      images.save_png(folder / f'{stem}-targets.png', images.banded([originals], columns))
  print(f'stored in {folder}')
