"""`--mode=disentangle`: ranges of the dimensions of slots, how active they are, and DCI scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.evals import segmentation, traversals
from hvae_tpu.metrics import dci, matching
from hvae_tpu.modes import loaded_run, scenes
from hvae_tpu.runs import slot_statistics
from hvae_tpu.storage import files
from hvae_tpu.training import setup

NOT_COMPARED = ('visibility', 'pixel_coords')
SPLIT_SEED = 5  # of the halves that DCI trains and tests on; the reference's


class Column(NamedTuple):
  """One number of the factors of an object.

  Attributes:
    name: 'shape', or 'color_0' of a factor of several numbers.
    field: of the records.
    index: in that factor; None where it is one number.
    discrete: whether it is a category.
  """

  name: str
  field: str
  index: int | None
  discrete: bool


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Writes `<run>/disentangle/<step>-<weights>*` (`latent_activity.py`). Returns the exit code.

  `.csv`, a row for each dimension: range, mean activeness, and its importance for each factor.

  Raises:
    UserError: no such checkpoint or view, a model without slots, records without objects, or an
      option that the records do not allow.
  """
  options = config.disentangle
  trained = loaded_run.open_trained(config, workdir, checkpoint, '--mode=disentangle', scenes.NEEDS)
  dataset = setup.open_data(config)
  columns = _columns(dataset.card, options.factors)
  for key in ('num_range', 'num_active'):
    if options[key] < 1:
      raise UserError(f'config.disentangle.{key}={options[key]} must be at least 1')

  def work(check: Callable[[], None]) -> int:
    wanted = max(options.num_examples, options.num_range, options.num_active)
    count = wanted if options.num_examples else 0
    fields = ('factor_visibility', *(column.field for column in columns))
    slots, codes, factors = [], [], []
    for scene in scenes.read(
      trained, dataset, config, options.split, count, options.seed, check, fields
    ):
      slots.append(scene.found.slots[-1])
      if not options.num_examples or scene.number < options.num_examples:
        found = _matched(scene, columns)
        codes.append(found[0])
        factors.append(found[1])
    arrays = _activity(trained, np.stack(slots), options, check)
    scores = _scores(np.concatenate(codes), np.concatenate(factors), columns, options.dci_modes)
    if jax.process_index() == 0:
      about = {
        'origin': trained.origin(),
        'data': config.data.name,
        'view': setup.view_name(config, options.split),
        'scenes': len(slots),
        'factors': [column.name for column in columns],
        'scores': {mode: dict(found[1]._asdict()) for mode, found in scores.items()},
      }
      path = slot_statistics.store(trained, arrays, about)
      importance = {mode: found[0] for mode, found in scores.items()}
      _store_table(path.with_suffix('.csv'), arrays, importance, columns)
    return 0

  return loaded_run.interruptible(work)


def _columns(card: dict[str, Any], wanted: tuple[str, ...]) -> list[Column]:
  """The numbers that objects are compared by, from what the card tells."""
  known = card.get('details', {}).get('factors', {})
  names = tuple(wanted) or tuple(name for name in known if name not in NOT_COMPARED)
  unknown = [name for name in names if name not in known]
  if unknown or not names:
    raise UserError(
      f'config.disentangle.factors={tuple(wanted)} must be among those of {card["name"]}: '
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
  """Codes [n, D] and factors [n, F] of the objects of a scene that have a slot."""
  true, found = scene.fields['segmentation'][..., 0], scene.found
  owners = segmentation.owners_of(np.exp(found.log_masks[-1]), true.shape[-1])
  present = int(scene.fields['factor_visibility'][1:].sum())
  slots = found.slots.shape[1]
  matches = matching.match(true, owners, min(present, slots), slots)
  rows = [scene.fields[c.field][matches.objects] for c in columns]
  rows = [row if c.index is None else row[:, c.index] for c, row in zip(columns, rows, strict=True)]
  return found.mean[-1][matches.slots], np.stack(rows, axis=1)


def _activity(
  trained: loaded_run.Trained, slots: np.ndarray, options: Any, check: Callable[[], None]
) -> dict[str, np.ndarray]:
  """Ranges, and activeness in one slot of each scene, chosen by the seed."""
  between = traversals.latent_range(slots[: options.num_range])
  values = traversals.steps(between, traversals.STEPS)
  measure = traversals.activeness(trained.run.model)
  slots = slots[: options.num_active]
  chosen = np.random.default_rng(options.seed).integers(slots.shape[1], size=len(slots))
  active = []
  for one, slot in loaded_run.shown(zip(slots, chosen, strict=True), len(slots)):
    check()
    active.append(measure(trained.params, one[None], slot[None], values)[0])
  return {'range': between, 'activeness': np.stack(active), 'slots': chosen}


def _scores(
  codes: np.ndarray, factors: np.ndarray, columns: list[Column], modes: tuple[str, ...]
) -> dict[str, tuple[np.ndarray, dci.Scores]]:
  """Importance [D, F] and scores by mode; none where too few objects were found."""
  if len(codes) < 2 * len(columns):
    loaded_run.say(f'only {len(codes)} objects have a slot of their own: no DCI scores')
    return {}
  loaded_run.say(f'{len(codes)} objects have a slot; fitting {len(columns)} factors ...')
  order = np.random.RandomState(SPLIT_SEED).permutation(len(codes))
  held_out = np.zeros(len(codes), bool)
  held_out[order[: -(-len(codes) // 2)]] = True
  discrete = tuple(column.discrete for column in columns)
  found = {}
  for mode in modes:
    found[mode] = dci.evaluate(codes, factors, discrete, held_out, mode)
    shown = '  '.join(f'{name} {value:.3f}' for name, value in found[mode][1]._asdict().items())
    loaded_run.say(f'DCI ({mode}): {shown}')
  return found


def _store_table(
  path: Path,
  arrays: dict[str, np.ndarray],
  importance: dict[str, np.ndarray],
  columns: list[Column],
) -> None:
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
