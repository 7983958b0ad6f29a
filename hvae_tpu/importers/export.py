"""Exports a run's weights as one file."""

from pathlib import Path

import jax
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.importers import hvae_tpu as exchange
from hvae_tpu.importers import tables
from hvae_tpu.runs import restore
from hvae_tpu.runs.checkpoints import path_name
from hvae_tpu.runs.workdir import to_json
from hvae_tpu.storage import tensor_files


def export_run(workdir: str | Path, checkpoint: str, output: str | Path) -> None:
  """Writes a run's weights, raw and averaged, with its model state and config, as one file.

  Args:
    workdir: of the run.
    checkpoint: 'latest', 'best', a step, or another work directory.
    output: a new file, safetensors (see importers/hvae_tpu.py).

  Raises:
    UserError: no such run, or the file exists.
  """
  if Path(output).exists():
    raise UserError(f'--output={output} exists and is not overwritten; give another')
  opened = restore.open_run(workdir, checkpoint, weights=('ema', 'raw'))
  state = opened.state
  fields = {}
  for field in exchange.FIELDS:
    leaves = jax.tree_util.tree_leaves_with_path(getattr(state, field))
    if leaves:
      fields[field] = {path_name(path): np.asarray(leaf) for path, leaf in leaves}
  meta = {
    'step': int(state.step),
    'config': to_json(opened.config),
    'card': opened.meta['card'],
    'metrics': opened.meta['metrics'],
    'import': opened.meta.get('import'),
  }
  exchange.write(output, fields, meta)
  back = exchange.contents(tensor_files.read(output))
  same = all(
    tables.identical(back.fields[field].get(name), array)
    for field, arrays in fields.items()
    for name, array in arrays.items()
  )
  if not same:
    raise RuntimeError(f'{output}, read back, is not what was written')
  size = sum(array.size for arrays in fields.values() for array in arrays.values())
  print(
    f'wrote {output}: {", ".join(fields)} of step {state.step:,}, '
    f'{sum(map(len, fields.values())):,} tensors, {size:,} numbers; read back: equal bit for bit'
  )
