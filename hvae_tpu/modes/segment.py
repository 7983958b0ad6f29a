"""`--mode=segment`: segmented scenes after every refinement: scores, arrays and figures."""

from collections.abc import Callable
import dataclasses
from pathlib import Path

import jax
import ml_collections
import numpy as np

from hvae_tpu.evals import scene_records, segmentation
from hvae_tpu.figures import plots
from hvae_tpu.metrics import matching
from hvae_tpu.metrics.rand_index import adjusted_rand_index
from hvae_tpu.modes import loaded_run, scenes
from hvae_tpu.settings import setting
from hvae_tpu.storage import files
from hvae_tpu.training import setup

FOLDERS = ('segment',)
REPORTED = True


@dataclasses.dataclass(frozen=True)
class Options(scenes.SceneOptions):
  """Options of `--mode=segment`."""

  num_examples: int = setting(320, least=0)  # first scenes of the split; 0: all
  num_records: int = setting(10, least=0)  # first scenes to store whole, with a figure
  show_attention: bool = setting(False)  # show the attention of slots, not their pictures


@loaded_run.interruptible
def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  raise_if_interrupted: Callable[[], None],
) -> None:
  """Writes `<run>/segment/<view>-<step>-<weights>*`.

  `.csv` has a row for each scene and each number of refinements. `-<scene>.npz` holds all arrays
  of one of the first scenes (`evals/scene_records.py`), and `-<scene>.png` is its figure.

  Raises:
    UserError: no such checkpoint or view, a model without slots, or records without objects.
  """
  options = loaded_run.read_options(Options, config, 'segment')
  loaded = loaded_run.load_run(config, workdir, checkpoint, 'segment', scenes.NEEDS)
  dataset = setup.open_data(config)
  entities = scenes.num_entities(dataset.card)
  stem = loaded.view_tag(setup.view_name(config, options.split))
  folder, rows = loaded.workdir / 'segment', []
  for scene in scenes.read(
    loaded, dataset, config, options, options.num_examples, raise_if_interrupted
  ):
    rows += _scores(scene)
    if scene.number < options.num_records and jax.process_index() == 0:
      owners = scene.fields['segmentation'][..., 0]
      record = scene_records.record(scene.fields['image'], owners, entities, scene.segments)
      files.save_arrays(folder / f'{stem}-{scene.number:04d}.npz', record)
      figure = folder / f'{stem}-{scene.number:04d}.png'
      plots.save_scene(figure, record, options.show_attention)
  if jax.process_index() == 0:
    files.save_csv(folder / f'{stem}.csv', rows)
    _print_means(rows)
    print(f'means over {len({row["scene"] for row in rows})} scenes; stored in {folder}')


def _scores(scene: scenes.Scene) -> list[dict[str, float]]:
  """Computes a row of scores for every number of refinements: the last stages."""
  segments, true = scene.segments, scene.fields['segmentation'][..., 0]
  masks, image = np.exp(segments.log_masks), scene.fields['image'] / 255
  count = 1 if segments.kl is None else len(segments.kl)
  rows = []
  for refinements, stage in enumerate(range(len(masks) - count, len(masks))):
    owners = segmentation.owners_of(masks[stage], true.shape[-1])
    painted = (masks[stage][..., None] * segments.rgb[stage]).sum(0)
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
    if segments.kl is not None:
      row |= {'kl': segments.kl[refinements], 'nll': segments.nll[refinements]}
    rows.append(row)
  return rows


def _print_means(rows: list[dict[str, float]]) -> None:
  """Prints means over the scenes, a line for each number of refinements."""
  names = [name for name in rows[0] if name != 'scene']
  print('  '.join(f'{name:>11}' for name in names))
  for refinements in sorted({row['refinements'] for row in rows}):
    group = [row for row in rows if row['refinements'] == refinements]
    means = [np.mean([row[name] for row in group]) for name in names]
    print('  '.join(f'{mean:>11.5g}' for mean in means))
