"""`--mode=segment`: scenes taken apart, at every stage: scores, arrays and figures."""

from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections
import numpy as np

from hvae_tpu.evals import scene_records, segmentation
from hvae_tpu.figures import plots
from hvae_tpu.metrics import matching
from hvae_tpu.metrics.rand_index import adjusted_rand_index
from hvae_tpu.modes import loaded_run, scenes
from hvae_tpu.storage import files
from hvae_tpu.training import setup


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Writes `<run>/segment/<view>-<step>-<weights>*`. Returns the exit code.

  `.csv`, a row for each scene and each number of refinements; `-<scene>.npz`, everything known of
  the first scenes (`evals/scene_records.py`); `-<scene>.png`, a figure of each.

  Raises:
    UserError: no such checkpoint or view, a model without slots, or records without objects.
  """
  options = config.segment
  trained = loaded_run.open_trained(config, workdir, checkpoint, '--mode=segment', scenes.NEEDS)
  dataset = setup.open_data(config)
  entities = scenes.entities(dataset.card)
  view = setup.view_name(config, options.split)
  stem = trained.run.workdir / 'segment' / f'{view.replace("/", "-")}-{trained.stem}'

  def work(check: Callable[[], None]) -> int:
    rows = []
    for scene in scenes.read(
      trained, dataset, config, options.split, options.num_examples, options.seed, check
    ):
      rows += _scores(scene)
      if scene.number < options.num_records and jax.process_index() == 0:
        _store(stem, scene, entities, options.show_attention)
    if jax.process_index() == 0:
      _store_table(Path(f'{stem}.csv'), rows)
    return 0

  return loaded_run.interruptible(work)


def _scores(scene: scenes.Scene) -> list[dict[str, float]]:
  """A row for every number of refinements: the last stages."""
  found, true = scene.found, scene.fields['segmentation'][..., 0]
  masks, image = np.exp(found.log_masks), scene.fields['image'] / 255
  count = 1 if found.kl is None else len(found.kl)
  rows = []
  for refinements, stage in enumerate(range(len(masks) - count, len(masks))):
    owners = segmentation.owners_of(masks[stage], true.shape[-1])
    painted = (masks[stage][..., None] * found.rgb[stage]).sum(0)
    overlaps = matching.texture_scores(true, owners, len(masks[stage]), image, painted)
    row = {
      'scene': scene.number,
      'refinements': refinements,
      'ari': adjusted_rand_index(true, owners),
      'ari_all': adjusted_rand_index(true, owners, foreground=False),
      'miou': overlaps['miou'],
      'miou_fg': overlaps['miou_fg'],
      'mse': np.square(painted - image).mean(),
    }
    if found.kl is not None:
      row |= {'kl': found.kl[refinements], 'nll': found.nll[refinements]}
    rows.append(row)
  return rows


def _store(stem: Path, scene: scenes.Scene, entities: int, show_attention: bool) -> None:
  owners = scene.fields['segmentation'][..., 0]
  record = scene_records.record(scene.fields['image'], owners, entities, scene.found)
  files.save_arrays(Path(f'{stem}-{scene.number:04d}.npz'), record)
  plots.save_scene(Path(f'{stem}-{scene.number:04d}.png'), record, show_attention)


def _store_table(path: Path, rows: list[dict[str, float]]) -> None:
  files.save_csv(path, rows)
  names = [name for name in rows[0] if name != 'scene']
  print('  '.join(f'{name:>11}' for name in names))
  for refinements in sorted({row['refinements'] for row in rows}):
    mine = [row for row in rows if row['refinements'] == refinements]
    means = [np.mean([row[name] for row in mine]) for name in names]
    print('  '.join(f'{mean:>11.5g}' for mean in means))
  print(f'means over {len({row["scene"] for row in rows})} scenes; stored in {path.parent}')
