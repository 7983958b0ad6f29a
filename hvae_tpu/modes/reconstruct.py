"""`--mode=reconstruct`: likelihood, rate, distortion and pictures, whole or with pruned latents."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.evals import reconstruction
from hvae_tpu.figures import images, plots
from hvae_tpu.modes import loaded_run
from hvae_tpu.runs import channel_kl
from hvae_tpu.storage import files
from hvae_tpu.training import setup

# Columns of the table, where the model reports them.
COLUMNS = ('kl', 'nll', 'neg_elbo', 'kl_bpd', 'nll_bpd', 'bpd', 'ssim')


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Writes `<run>/reconstruct/<view>-<step>-<weights>*`. Returns the exit code.

  `.csv` and `-rate-distortion.png`, a row and a point for each of `config.reconstruct.quantiles`;
  `.png`, originals above a row of reconstructions for each; `.npz`, the same pictures as arrays.

  Raises:
    UserError: no such checkpoint or view, a quantile that is out of range or without div_stats.
  """
  options = config.reconstruct
  quantiles = tuple(options.quantiles)
  _check(options, quantiles)
  trained = loaded_run.open_trained(
    config, workdir, checkpoint, '--mode=reconstruct', reconstruction.NEEDS
  )
  masks = [
    channel_kl.variates(trained, config, q, 'config.reconstruct.quantiles') for q in quantiles
  ]
  dataset = setup.open_data(config)
  mesh, state = trained.run.mesh, trained.run.state
  view = setup.view_name(config, options.split)
  reconstruct = reconstruction.make(trained.run.model, mesh, masks, options.num_pictures)

  def work(check: Callable[[], None]) -> int:
    batches = setup.eval_batches(dataset, config, mesh, options.split, check)()
    total = -(-dataset.size(view) // config.evals.batch_size)
    results, originals = reconstruct(
      trained.params,
      state.model_state,
      state.step,
      loaded_run.shown(batches, total),
      jax.random.key(options.seed),
    )
    if jax.process_index() == 0:
      rows = [
        _row(q, mask, result) for q, mask, result in zip(quantiles, masks, results, strict=True)
      ]
      print(_table(rows))
      stem = f'{view.replace("/", "-")}-{trained.stem}'
      _store(trained.run.workdir / 'reconstruct', stem, rows, results, originals, options)
    return 0

  return loaded_run.interruptible(work)


def _check(options: Any, quantiles: tuple[float, ...]) -> None:
  """Raises UserError for settings that no run could take."""
  if not quantiles:
    raise UserError('config.reconstruct.quantiles=() must not be empty; (1.0,) keeps everything')
  for quantile in quantiles:
    channel_kl.check_quantile(quantile, 'config.reconstruct.quantiles')
  # As results are named.
  names = [f'{quantile:g}' for quantile in quantiles]
  if twice := sorted({name for name in names if names.count(name) > 1}):
    raise UserError(
      f'config.reconstruct.quantiles has {", ".join(twice)} more than once (to six digits); give '
      f'each quantile once'
    )
  loaded_run.check_least('reconstruct', options, num_pictures=0, columns=1)


def _row(
  quantile: float, mask: np.ndarray | None, result: reconstruction.Result
) -> dict[str, float]:
  kept = 1.0 if mask is None else float(mask.mean())
  numbers = {name: float(result.numbers[name]) for name in COLUMNS if name in result.numbers}
  return {'quantile': quantile, 'kept': kept, **numbers, 'examples': result.numbers['num_examples']}


def _table(rows: list[dict[str, float]]) -> str:
  """Rate (kl) and distortion (nll) in nats per example, then in bits/dim."""
  lines = ['  '.join(f'{name:>9}' for name in rows[0])]
  lines += ['  '.join(f'{value:>9.5g}' for value in row.values()) for row in rows]
  return '\n'.join(lines)


def _store(
  folder: Path,
  stem: str,
  rows: list[dict[str, float]],
  results: list[reconstruction.Result],
  originals: np.ndarray,
  options: Any,
) -> None:
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
