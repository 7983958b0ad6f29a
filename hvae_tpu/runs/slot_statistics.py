"""What single dimensions of slots do in a run, stored; what traversals go by.

<run>/disentangle/<step>-<weights>.npz    range [D, 2], lowest and highest values; activeness
                                          [scenes, D], variance of pictures; slots [scenes], whose
<run>/disentangle/<step>-<weights>.json   the weights they belong to, the data, scores
"""

import json
from pathlib import Path
from typing import Any
import zipfile

import ml_collections
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.modes.loaded_run import Trained, check_origin
from hvae_tpu.storage.files import replacing


def place(trained: Trained) -> Path:
  """The path of the numbers."""
  return trained.run.workdir / 'disentangle' / f'{trained.stem}.npz'


def store(trained: Trained, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> Path:
  """Writes both files; returns the path of the numbers."""
  path = place(trained)
  # The text last: without it the numbers do not count.
  path.with_suffix('.json').unlink(missing_ok=True)
  with replacing(path) as partial, open(partial, 'wb') as file:
    np.savez(file, **arrays)
  with replacing(path.with_suffix('.json')) as partial:
    partial.write_text(json.dumps(about, indent=2) + '\n')
  return path


def load(trained: Trained, config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
  """The numbers of a run.

  Raises:
    UserError: there are none of these weights and data, or they are damaged.
  """
  path, step = place(trained), trained.run.state.step
  remedy = f'run --mode=disentangle --checkpoint={step} with the same --config and --workdir'
  try:
    about = json.loads(path.with_suffix('.json').read_text())
    with np.load(path) as stored:
      arrays = {name: stored[name] for name in ('range', 'activeness')}
    origin, data_name = about['origin'], about['data']
  except FileNotFoundError as error:
    raise UserError(f'traversals need {path}, which is missing; {remedy}') from error
  except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
    raise UserError(f'{path} cannot be read ({error}); {remedy}') from error
  check_origin(origin, trained.origin(), str(path), remedy)
  if data_name != config.data.name:
    raise UserError(
      f'{path} was made on data set {data_name}, but config.data.name={config.data.name}; {remedy}'
    )
  return arrays
