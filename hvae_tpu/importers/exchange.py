"""Our own exchange format: a safetensors file of a run's weights, and the facts about them.

Tensors are called `params/...`, `ema_params/...` and `model_state/...`, by the paths of the train
state. The metadata have `format` and `version`, and as JSON `step`, `config`, `card` (the data
card), `metrics` and `import` (the report on an earlier import, or null).
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
from hvae_tpu.importers import trees
from hvae_tpu.importers.formats import Contents, Format, Meta
from hvae_tpu.models.protocol import Batch, Model
from hvae_tpu.storage.tensor_files import Container

VERSION = '1'
FIELDS = ('params', 'ema_params', 'model_state')
META = ('step', 'config', 'card', 'metrics', 'import')


def contents(container: Container) -> Contents:
  """Splits the tensors by field, and reads the metadata.

  Raises:
    UserError: another program's file, or one of another version.
  """
  stored = container.metadata
  written_by = stored.get('format'), stored.get('version')
  if written_by != ('hvae_tpu', VERSION):
    raise UserError(
      f'the {container.kind} has format {written_by[0]!r}, version {written_by[1]!r} in '
      f"its metadata, expected 'hvae_tpu' and {VERSION!r}; write it with --to=safetensors"
    )
  try:
    meta = {key: json.loads(stored[key]) for key in META}
    known = isinstance(meta['config'], dict) and meta['card']['fields'] and int(meta['step']) >= 0
  except (KeyError, ValueError, TypeError, RecursionError) as error:
    raise UserError(f'the metadata of the file are damaged ({error}); export it again') from error
  if not known:
    raise UserError('the metadata of the file lack config, card or step; export it again')
  fields = {}
  for name, tensor in trees.flatten(container.tree, '/').items():
    field, _, rest = name.partition('/')
    if field not in FIELDS:
      raise UserError(f'{name} is not expected: tensors begin with one of {", ".join(FIELDS)}')
    fields.setdefault(field, {})[rest] = tensor
  return Contents(fields, {}, meta)


def _example(model: Model, meta: Meta) -> Batch:
  """Returns the shapes of a batch of one example, from the data card beside the weights."""
  try:
    return {
      name: jax.ShapeDtypeStruct((1, *field['shape']), np.dtype(field['dtype']))
      for name, field in meta['card']['fields'].items()
    }
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise UserError(f'the data card in the file is damaged ({error}); export it again') from error


FORMAT = Format(
  settings={},  # the config in the file has them all
  contents=contents,
  rows=None,
  batch=_example,
)


def write(
  path: str | os.PathLike, fields: Mapping[str, Mapping[str, Any]], meta: Mapping[str, Any]
) -> None:
  """Writes a new file, whole or not at all.

  Args:
    path: the new file.
    fields: field of `FIELDS` -> name inside the field -> array.
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
