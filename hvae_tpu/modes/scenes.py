"""Scenes of a view, taken apart one batch after another: what the modes of slots begin with."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from hvae_tpu import data
from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.evals import segmentation
from hvae_tpu.modes import loaded_run
from hvae_tpu.training import setup

NEEDS = ('segment', 'paint', 'num_slots')


class Scene(NamedTuple):
  """One scene, on the host.

  Attributes:
    number: place in the view.
    fields: of the record, without the axis of the batch.
    found: `models.protocol.Segments`, likewise.
  """

  number: int
  fields: dict[str, np.ndarray]
  found: Any


def entities(card: dict[str, Any]) -> int:
  """The most entities that a picture of a data set holds.

  Raises:
    UserError: the card does not tell, so the set has no objects.
  """
  count = card.get('details', {}).get('entities')
  if count is None:
    raise UserError(
      f'the card of {card["name"]} tells of no entities, which this mode needs; choose a data set '
      f'of objects with config.data.name'
    )
  return count


def read(
  trained: loaded_run.Trained,
  dataset: data.Dataset,
  config: ml_collections.ConfigDict,
  split: str,
  count: int,
  seed: int,
  check: Callable[[], None],
  fields: tuple[str, ...] = (),
) -> Iterator[Scene]:
  """The first `count` scenes of a view (0: all), with lines that tell how far it is.

  Args:
    fields: further fields of the records to read.
    check: called before every batch, and may raise.

  Raises:
    UserError: no such view, or records without `segmentation`.
  """
  wanted = ml_collections.ConfigDict(config)
  with wanted.unlocked():
    wanted.data.fields = tuple(dict.fromkeys((*config.data.fields, *fields)))
  run, size = trained.run, dataset.size(setup.view_name(config, split))
  count = min(count or size, size)
  batches = setup.eval_batches(dataset, wanted, run.mesh, split, check)()
  segment = jax.jit(run.model.segment)
  done, total = 0, -(-count // config.evals.batch_size)
  for i, batch in enumerate(loaded_run.shown(batches, total)):
    segmentation.require_masks(batch)
    key = jax.random.fold_in(jax.random.key(seed), i)
    found = segment(trained.params, run.state.model_state, batch, key)
    batch, found = sharding.to_host((batch, found))
    for row in range(min(int(batch['mask'].sum()), count - done)):
      take = lambda array, row=row: array[row]
      yield Scene(done, jax.tree.map(take, batch), jax.tree.map(take, found))
      done += 1
    if done >= count:
      return
