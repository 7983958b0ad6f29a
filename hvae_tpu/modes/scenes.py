"""Scenes of a view, segmented one batch after another, for the modes of slots."""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from hvae_tpu import data
from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.evals import segmentation
from hvae_tpu.modes import loaded_run
from hvae_tpu.runs.restore import LoadedRun
from hvae_tpu.settings import setting
from hvae_tpu.training import setup

NEEDS = ('segment', 'paint', 'num_slots')


@dataclasses.dataclass(frozen=True)
class SceneOptions:
  """Options of the modes of slots."""

  split: str = setting('test')  # scenes to read: train, valid, test, or a view's name
  seed: int = setting(0, least=0)  # seed of all noise


class Scene(NamedTuple):
  """One segmented scene, on the host.

  Attributes:
    number: place in the view.
    fields: fields of the record, without the batch axis.
    segments: `models.protocol.Segments`, without the batch axis.
  """

  number: int
  fields: dict[str, np.ndarray]
  segments: Any


def num_entities(card: dict[str, Any]) -> int:
  """Returns the largest number of entities in a picture of a data set.

  Raises:
    UserError: the card does not say, so the set has no objects.
  """
  count = card.get('details', {}).get('entities')
  if count is None:
    raise UserError(
      f'the card of {card["name"]} tells of no entities, which this mode needs; choose a data set '
      f'of objects with config.data.name'
    )
  return count


def read(
  loaded: LoadedRun,
  dataset: data.Dataset,
  config: ml_collections.ConfigDict,
  options: SceneOptions,
  count: int,
  raise_if_interrupted: Callable[[], None],
  fields: tuple[str, ...] = (),
) -> Iterator[Scene]:
  """Yields the first `count` scenes of a view (0: all), and prints progress.

  Args:
    options: split and seed.
    fields: further fields of the records to read.
    raise_if_interrupted: called before every batch.

  Raises:
    UserError: no such view, or records without `segmentation`.
  """
  config_of_fields = ml_collections.ConfigDict(config)
  with config_of_fields.unlocked():
    config_of_fields.data.fields = tuple(dict.fromkeys((*config.data.fields, *fields)))
  size = dataset.size(setup.view_name(config, options.split))
  count = min(count or size, size)
  batches = setup.eval_batches(
    dataset, config_of_fields, loaded.mesh, options.split, raise_if_interrupted
  )()
  segment = jax.jit(loaded.model.segment)
  done, total = 0, -(-count // config.evals.batch_size)
  for i, batch in enumerate(loaded_run.with_progress(batches, total)):
    segmentation.require_masks(batch)
    key = jax.random.fold_in(jax.random.key(options.seed), i)
    segments = segment(loaded.params, loaded.model_state, batch, key)
    batch, segments = sharding.to_host((batch, segments))
    for row in range(min(int(batch['mask'].sum()), count - done)):
      take = lambda array, row=row: array[row]
      yield Scene(done, jax.tree.map(take, batch), jax.tree.map(take, segments))
      done += 1
    if done >= count:
      return
