"""Statistics of one set of weights, which other modes read: arrays, and a record of the weights.

<run>/<mode>/<step>-<weights>.npz    the arrays that the mode measured
<run>/<mode>/<step>-<weights>.json   `origin` of the weights, `data`, the name of the data set, ...
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.runs.restore import LoadedRun
from hvae_tpu.storage import files


def store(
  run: LoadedRun, mode: str, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]
) -> Path:
  """Writes both files; returns the path of the arrays."""
  path = _path(run, mode)
  # The record last: without it the arrays do not count.
  path.with_suffix('.json').unlink(missing_ok=True)
  files.save_arrays(path, arrays)
  files.save_json(path.with_suffix('.json'), about, strict=False)
  return path


def load(run: LoadedRun, mode: str, names: Sequence[str], what: str) -> dict[str, np.ndarray]:
  """Reads the named arrays that a mode has stored of the weights of a run.

  Args:
    what: the feature that needs them, which errors name.

  Raises:
    UserError: there are none of these weights and this data set, or they are damaged.
  """
  path = _path(run, mode)
  remedy = f'run --mode={mode} --checkpoint={run.step} with the same --config and --workdir'
  missing = f'{what} needs {mode} of step {run.step}, {run.weights} weights, but {path} is missing'
  if others := ', '.join(sorted(other.stem for other in path.parent.glob('*.json'))):
    missing += f'; there are those of {others}'
  keys = ('origin', 'data')
  about = files.read_json(path.with_suffix('.json'), remedy, missing=missing, keys=keys)
  arrays = files.read_arrays(path, names, remedy, missing=missing)
  run.check_origin(about['origin'], str(path), remedy)
  if about['data'] != run.config.data.name:
    raise UserError(
      f'{path} was made on data set {about["data"]}, but config.data.name='
      f'{run.config.data.name}; {remedy}'
    )
  return arrays


def _path(run: LoadedRun, mode: str) -> Path:
  return run.workdir / mode / f'{run.checkpoint_tag}.npz'
