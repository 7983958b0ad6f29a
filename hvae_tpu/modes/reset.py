"""`--mode=reset`: deletes what a run has written, and nothing else."""

from pathlib import Path
import shutil

import ml_collections

from hvae_tpu.errors import UserError
from hvae_tpu.runs.workdir import CONFIG, stored_config

# What the program writes into a work directory, as patterns; see workdir.py. The config goes last:
# after an interruption the rest can still be reset.
OURS = (
  *('sample', 'eval', 'div_stats', 'reconstruct', 'encode', 'decode', 'explore', 'interpolate'),
  *('pick', 'quality', 'report', 'open_loop', 'segment', 'disentangle', 'traverse', 'geco_target'),
  *('plan', 'train'),
  *('nonfinite-*', 'damaged-checkpoint-*', 'checkpoints'),
)


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Lists what would be deleted, and deletes it with `config.reset.yes=true`.

  Raises:
    UserError: the directory is not one of ours.
  """
  if stored_config(workdir) is None:
    raise UserError(
      f'{workdir} has no {CONFIG}, so it is not a work directory of this program; '
      f'nothing is deleted; correct --workdir'
    )
  patterns = (*OURS, CONFIG)
  present = [path for pattern in patterns for path in sorted(workdir.glob(pattern))]
  for path in present:
    print(f'{"deleting" if config.reset.yes else "would delete"} {path} ({_size(path)})')
  if not config.reset.yes:
    print('nothing was deleted; add --config.reset.yes=true to delete')
    return 0
  for path in present:
    # Of a link only the link is ours.
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
  left = sorted(p.name for p in workdir.iterdir())
  if left:
    print(f'kept what is not ours: {", ".join(left)}')
  else:
    workdir.rmdir()
  return 0


def _size(path: Path) -> str:
  files = [path] if path.is_file() else [p for p in path.rglob('*') if p.is_file()]
  return f'{len(files)} files, {sum(p.stat().st_size for p in files) / 2**20:.1f} MiB'
