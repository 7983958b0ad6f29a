"""`--mode=disentangle`: ranges and activeness of the dimensions of slots, and DCI scores."""

from collections.abc import Callable
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.evals import segmentation, traversals
from hvae_tpu.metrics import dci, matching
from hvae_tpu.modes import loaded_run, scenes
from hvae_tpu.runs import weight_statistics
from hvae_tpu.runs.restore import LoadedRun
from hvae_tpu.settings import setting
from hvae_tpu.storage import files
from hvae_tpu.training import setup

FOLDERS = ('disentangle',)
NOT_COMPARED = ('visibility', 'pixel_coords')
SPLIT_SEED = 5  # splits scenes for DCI into training and test halves, as in the reference


class Column(NamedTuple):
  """One number of the factors of an object.

  Attributes:
    name: 'shape', or 'color_0' of a factor of several numbers.
    field: field of the records.
    index: in that factor; None where it is one number.
    discrete: whether it is a category.
  """

  name: str
  field: str
  index: int | None
  discrete: bool


@dataclasses.dataclass(frozen=True)
class Options(scenes.SceneOptions):
  """Options of `--mode=disentangle`."""

  num_range: int = setting(100, least=1)  # scenes for the range of each dimension
  num_active: int = setting(100, least=1)  # scenes for the activeness of each dimension
  num_examples: int = setting(320, least=0)  # scenes for codes and factors; 0: all
  # ways to compute DCI scores: per_factor, reference (EfficientMORL's code), or both
  dci_modes: tuple[str, ...] = setting(('per_factor',), choices=dci.MODES)
  # factors of the records to compare with; (): all but visibility and pixel_coords
  factors: tuple[str, ...] = setting(())


@loaded_run.interruptible
def run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  raise_if_interrupted: Callable[[], None],
) -> None:
  """Writes `<run>/disentangle/<step>-<weights>.npz`, `.json` and `.csv`.

  The arrays are `range` [D, 2], lowest and highest values of each dimension; `activeness`
  [scenes, D], variance of pictures; `slots` [scenes], numbers of the measured slots. The table has
  a row for each dimension: range, mean activeness, and its importance for each factor.

  Raises:
    UserError: no such checkpoint or view, a model without slots, records without objects, or an
      option that the records do not allow.
  """
  options = loaded_run.read_options(Options, config, 'disentangle')
  loaded = loaded_run.load_run(config, workdir, checkpoint, 'disentangle', scenes.NEEDS)
  dataset = setup.open_data(config)
  columns = _columns(dataset.card, options.factors)
  most = max(options.num_examples, options.num_range, options.num_active)
  count = most if options.num_examples else 0
  fields = ('factor_visibility', *(column.field for column in columns))
  slots, codes, factors = [], [], []
  for scene in scenes.read(loaded, dataset, config, options, count, raise_if_interrupted, fields):
    slots.append(scene.segments.slots[-1])
    if not options.num_examples or scene.number < options.num_examples:
      scene_codes, scene_factors = _matched(scene, columns)
      codes.append(scene_codes)
      factors.append(scene_factors)
  arrays = _activity(loaded, np.stack(slots), options, raise_if_interrupted)
  scores = _scores(np.concatenate(codes), np.concatenate(factors), columns, options.dci_modes)
  if jax.process_index() == 0:
    about = {
      **loaded.about(setup.view_name(config, options.split)),
      'scenes': len(slots),
      'factors': [column.name for column in columns],
      'scores': {mode: dict(numbers._asdict()) for mode, (_, numbers) in scores.items()},
    }
    path = weight_statistics.store(loaded, 'disentangle', arrays, about)
    importance = {mode: matrix for mode, (matrix, _) in scores.items()}
    _store_table(path.with_suffix('.csv'), arrays, importance, columns)


def _columns(card: dict[str, Any], factors: tuple[str, ...]) -> list[Column]:
  """Returns the numbers that objects are compared by, from the data card."""
  known = card.get('details', {}).get('factors', {})
  names = factors or tuple(name for name in known if name not in NOT_COMPARED)
  unknown = [name for name in names if name not in known]
  if unknown or not names:
    raise UserError(
      f'config.disentangle.factors={factors} must be among those of {card["name"]}: '
      f'{", ".join(known) or "none, so choose a data set of objects with config.data.name"}'
    )
  columns = []
  for name in names:
    width, discrete = known[name]['width'], known[name]['kind'] == 'categorical'
    for i in range(width):
      label, index = (f'{name}_{i}', i) if width > 1 else (name, None)
      columns.append(Column(label, f'factor_{name}', index, discrete))
  return columns


def _matched(scene: scenes.Scene, columns: list[Column]) -> tuple[np.ndarray, np.ndarray]:
  """Returns codes [n, D] and factors [n, F] of the objects of a scene that have a slot."""
  true, segments = scene.fields['segmentation'][..., 0], scene.segments
  owners = segmentation.owners_of(np.exp(segments.log_masks[-1]), true.shape[-1])
  present = int(scene.fields['factor_visibility'][1:].sum())
  slots = segments.slots.shape[1]
  matches = matching.match(true, owners, min(present, slots), slots)
  rows = [scene.fields[c.field][matches.objects] for c in columns]
  rows = [row if c.index is None else row[:, c.index] for c, row in zip(columns, rows, strict=True)]
  return segments.mean[-1][matches.slots], np.stack(rows, axis=1)


def _activity(
  loaded: LoadedRun, slots: np.ndarray, options: Options, raise_if_interrupted: Callable[[], None]
) -> dict[str, np.ndarray]:
  """Measures ranges, and activeness in one slot of each scene, which the seed chooses."""
  limits = traversals.latent_range(slots[: options.num_range])
  values = traversals.steps(limits, traversals.STEPS)
  measure = traversals.activeness(loaded.model)
  slots = slots[: options.num_active]
  chosen = np.random.default_rng(options.seed).integers(slots.shape[1], size=len(slots))
  active = []
  pairs = zip(slots, chosen, strict=True)
  for scene, slot in loaded_run.with_progress(
    pairs, len(slots), raise_if_interrupted=raise_if_interrupted
  ):
    active.append(measure(loaded.params, scene[None], slot[None], values)[0])
  return {'range': limits, 'activeness': np.stack(active), 'slots': chosen}


def _scores(
  codes: np.ndarray, factors: np.ndarray, columns: list[Column], modes: tuple[str, ...]
) -> dict[str, tuple[np.ndarray, dci.Scores]]:
  """Computes importance [D, F] and scores by mode; none if too few objects have a slot."""
  if len(codes) < 2 * len(columns):
    loaded_run.print_once(f'only {len(codes)} objects have a slot of their own: no DCI scores')
    return {}
  loaded_run.print_once(f'{len(codes)} objects have a slot; fitting {len(columns)} factors ...')
  order = np.random.RandomState(SPLIT_SEED).permutation(len(codes))
  held_out = np.zeros(len(codes), bool)
  held_out[order[: -(-len(codes) // 2)]] = True
  discrete = tuple(column.discrete for column in columns)
  results = {}
  for mode in modes:
    importance, scores = dci.evaluate(codes, factors, discrete, held_out, mode)
    results[mode] = importance, scores
    numbers = '  '.join(f'{name} {value:.3f}' for name, value in scores._asdict().items())
    loaded_run.print_once(f'DCI ({mode}): {numbers}')
  return results


def _store_table(
  path: Path,
  arrays: dict[str, np.ndarray],
  importance: dict[str, np.ndarray],
  columns: list[Column],
) -> None:
  """Writes a row for each dimension, and prints the most active ones."""
  active = arrays['activeness'].mean(0)
  rows = []
  for i, (low, high) in enumerate(arrays['range']):
    row = {'dimension': i, 'min': low, 'max': high, 'activeness': active[i]}
    for mode, matrix in importance.items():
      row |= {f'{mode}/{c.name}': v for c, v in zip(columns, matrix[i], strict=True)}
    rows.append(row)
  files.save_csv(path, rows)
  best = np.argsort(-active)[:10]
  print('most active: ' + ', '.join(f'{i} ({active[i]:.2g})' for i in best))
  print(f'stored in {path.parent}')
