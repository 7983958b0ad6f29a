"""Interface of a checkpoint format: from a file to arrays by name, and from names to parameters."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hvae_tpu.importers import tables
from hvae_tpu.importers.tables import Entry, Row
from hvae_tpu.models.protocol import Batch
from hvae_tpu.storage.tensor_files import Container

Meta = Mapping[str, Any]


class Contents(NamedTuple):
  """The weights in a file.

  Attributes:
    fields: 'params', and where the file has them 'ema_params' and 'model_state' -> arrays by the
      names of the format's table.
    aside: everything else in the file (step, optimizer): path -> number of leaves.
    meta: further facts: 'step', 'flags', and in format hvae_tpu 'config' and 'card'.
  """

  fields: dict[str, dict[str, np.ndarray]]
  aside: dict[str, int]
  meta: dict[str, Any]


def image_batch(model: Any, meta: Meta) -> Batch:
  """Returns the shapes of a batch of one image."""
  size = model.image_size
  return {'image': jax.ShapeDtypeStruct((1, size, size, model.image_channels), jnp.uint8)}


@dataclasses.dataclass(frozen=True)
class Format:
  """One kind of checkpoint of one reference implementation.

  Attributes:
    settings: fields of `config.model` that all models of the reference share.
    contents: file -> its weights; raises UserError if they are of another kind.
    rows: model -> field of the train state -> name table; None for our own names and layouts.
    batch: (model, `Contents.meta`) -> shapes of a batch of one example.
    check: (model, `Contents.meta`) -> None; raises UserError if the file is of another model.
  """

  settings: Mapping[str, Any]
  contents: Callable[[Container], Contents]
  rows: Callable[[Any], dict[str, list[Row]]] | None
  batch: Callable[[Any, Meta], Batch] = image_batch
  check: Callable[[Any, Meta], None] = lambda model, meta: None

  def tables(self, model: Any, meta: Meta | None = None) -> dict[str, list[Entry]]:
    """Returns one entry per array of the reference, by field; both directions follow from it."""
    params, state = jax.eval_shape(model.init, jax.random.key(0), self.batch(model, meta or {}))
    if self.rows is None:
      return {'params': tables.same(params), 'model_state': tables.same(state)}
    rows = self.rows(model)
    entries = {'params': tables.complete(rows['params'], params)}
    if 'model_state' in rows:  # of which a file may have a part only
      state = tables.part(rows['model_state'], state)
      entries['model_state'] = tables.complete(rows['model_state'], state)
    return entries

  def entries(self, model: Any) -> list[Entry]:
    """Returns the table of the parameters."""
    return self.tables(model)['params']
