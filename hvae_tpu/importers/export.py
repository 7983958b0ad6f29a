"""Exports a run's weights as one file."""

from pathlib import Path

import jax
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.importers import exchange, tables
from hvae_tpu.runs import restore
from hvae_tpu.runs.checkpoints import path_name
from hvae_tpu.runs.workdir import to_json
from hvae_tpu.storage import tensor_files


def export_run(workdir: str | Path, checkpoint: str, output: str | Path) -> None:
  """Writes a run's weights, raw and averaged, with its model state and config, as one file.

  Args:
    workdir: directory of the run.
    checkpoint: 'latest', 'best', a step, or another work directory.
    output: a new file, safetensors (see importers/exchange.py).

  Raises:
    UserError: no such run, or the file exists.
  """
  if Path(output).exists():
    raise UserError(f'--output={output} exists and is not overwritten; give another')
  run = restore.open_run(workdir, checkpoint, weights=('ema', 'raw'))
  fields = {}
  for field in exchange.FIELDS:
    leaves = jax.tree_util.tree_leaves_with_path(getattr(run.state, field))
    if leaves:
      fields[field] = {path_name(path): np.asarray(leaf) for path, leaf in leaves}
  meta = {
    'step': int(run.state.step),
    'config': to_json(run.config),
    'card': run.meta['card'],
    'metrics': run.meta['metrics'],
    'import': run.meta.get('import'),
  }
  exchange.write(output, fields, meta)
  stored = exchange.contents(tensor_files.read(output)).fields
  arrays = {(field, name): array for field in fields for name, array in fields[field].items()}
  if not all(tables.identical(stored[f].get(name), array) for (f, name), array in arrays.items()):
    raise RuntimeError(f'{output}, read back, is not what was written')
  print(
    f'wrote {output}: {", ".join(fields)} of step {run.state.step:,}, {len(arrays):,} tensors, '
    f'{sum(array.size for array in arrays.values()):,} numbers; read back: equal bit for bit'
  )
