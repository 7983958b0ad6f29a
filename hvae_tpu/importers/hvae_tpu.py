"""Our own exchange format: a safetensors file of a run's weights, with what else is known of them.

Tensors are called `params/...`, `ema_params/...` and `model_state/...`, by the paths of the train
state. The metadata have `format` and `version`, and as JSON `step`, `config`, `card` (the data
card), `metrics` and `import` (the verdict on an earlier import, or null).
"""

from collections.abc import Mapping
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from hvae_tpu.errors import UserError
from hvae_tpu.importers import tables, trees
from hvae_tpu.importers.tables import Entry
from hvae_tpu.importers.trees import Contents
from hvae_tpu.models.protocol import Batch, Model
from hvae_tpu.storage.tensor_files import Container

SETTINGS = {}  # the config in the file has them all
VERSION = '1'
FIELDS = ('params', 'ema_params', 'model_state')
META = ('step', 'config', 'card', 'metrics', 'import')


def contents(held: Container) -> Contents:
  """Splits the tensors by field, and reads the metadata.

  Raises:
    UserError: another program's file, or one of another version.
  """
  found = held.metadata
  if (found.get('format'), found.get('version')) != ('hvae_tpu', VERSION):
    raise UserError(
      f'the {held.kind} has format {found.get("format")!r}, version {found.get("version")!r} in '
      f"its metadata, expected 'hvae_tpu' and {VERSION!r}; write it with --to=safetensors"
    )
  try:
    meta = {key: json.loads(found[key]) for key in META}
    known = isinstance(meta['config'], dict) and meta['card']['fields'] and int(meta['step']) >= 0
  except (KeyError, ValueError, TypeError, RecursionError) as error:
    raise UserError(f'the metadata of the file are damaged ({error}); export it again') from error
  if not known:
    raise UserError('the metadata of the file lack config, card or step; export it again')
  fields = {}
  for name, tensor in trees.flatten(held.tree, '/').items():
    field, _, rest = name.partition('/')
    if field not in FIELDS:
      raise UserError(f'{name} is not expected: tensors begin with one of {", ".join(FIELDS)}')
    fields.setdefault(field, {})[rest] = tensor
  return Contents(fields, {}, meta)


def example(model: Model, found: Contents) -> Batch:
  """Shapes of a batch of one example, from the data card that came with the weights."""
  try:
    return {
      name: jax.ShapeDtypeStruct((1, *field['shape']), np.dtype(field['dtype']))
      for name, field in found.meta['card']['fields'].items()
    }
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise UserError(f'the data card in the file is damaged ({error}); export it again') from error


def field_tables(model: Model, batch: Batch) -> dict[str, list[Entry]]:
  """Names and layouts are ours."""
  params, state = jax.eval_shape(model.init, jax.random.key(0), batch)
  return {'params': tables.same(params), 'model_state': tables.same(state)}


def write(
  path: str | os.PathLike, fields: Mapping[str, Mapping[str, Any]], meta: Mapping[str, Any]
) -> None:
  """Writes a new file, whole or not at all.

  Args:
    fields: of `FIELDS` -> name inside the field -> array.
    meta: values of `META`.

  Raises:
    UserError: there is a file already, or it cannot be written.
  """
  path = Path(path)
  tensors = {
    f'{field}/{name}': np.asarray(array, order='C')
    for field, arrays in fields.items()
    for name, array in arrays.items()
  }
  metadata = {'format': 'hvae_tpu', 'version': VERSION}
  metadata |= {key: json.dumps(meta[key]) for key in META}
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    if path.exists():
      raise FileExistsError
    safetensors.save_file(tensors, temporary, metadata)
    temporary.rename(path)
  except FileExistsError as error:
    raise UserError(f'{path} exists and is not overwritten; give another --output') from error
  except (OSError, SafetensorError) as error:
    raise UserError(f'{path} cannot be written ({error}); give another --output') from error
  finally:
    temporary.unlink(missing_ok=True)
