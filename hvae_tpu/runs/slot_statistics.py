"""What single dimensions of slots do in a run, stored; what traversals go by.

<run>/disentangle/<step>-<weights>.npz    range [D, 2], lowest and highest values; activeness
                                          [scenes, D], variance of pictures; slots [scenes], whose
<run>/disentangle/<step>-<weights>.json   the weights they belong to, the data, scores
"""

from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.modes.loaded_run import Trained, check_origin
from hvae_tpu.storage import files


def place(trained: Trained) -> Path:
  """The path of the numbers."""
  return trained.run.workdir / 'disentangle' / f'{trained.stem}.npz'


def store(trained: Trained, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> Path:
  """Writes both files; returns the path of the numbers."""
  path = place(trained)
  # The text last: without it the numbers do not count.
  path.with_suffix('.json').unlink(missing_ok=True)
  files.save_arrays(path, arrays)
  files.save_json(path.with_suffix('.json'), about, strict=False)
  return path


def load(trained: Trained, config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
  """The numbers of a run.

  Raises:
    UserError: there are none of these weights and data, or they are damaged.
  """
  path, step = place(trained), trained.run.state.step
  remedy = f'run --mode=disentangle --checkpoint={step} with the same --config and --workdir'
  missing = f'traversals need {path}, which is missing'
  about_path = path.with_suffix('.json')
  about = files.read_json(about_path, remedy, missing=missing, keys=('origin', 'data'))
  arrays = files.read_arrays(path, ('range', 'activeness'), remedy, missing=missing)
  check_origin(about['origin'], trained.origin(), str(path), remedy)
  if about['data'] != config.data.name:
    raise UserError(
      f'{path} was made on data set {about["data"]}, but config.data.name={config.data.name}; '
      f'{remedy}'
    )
  return arrays
