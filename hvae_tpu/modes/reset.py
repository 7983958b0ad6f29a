"""`--mode=reset`: deletes the files that the program has written for a run, and nothing else."""

import dataclasses
from pathlib import Path
import shutil

import ml_collections

from hvae_tpu.errors import UserError
from hvae_tpu.modes import loaded_run
from hvae_tpu.runs.workdir import CONFIG, stored_config
from hvae_tpu.settings import setting

FOLDERS = ()


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of `--mode=reset`."""

  yes: bool = setting(False)  # delete, instead of only listing


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Lists the files that would be deleted, and deletes them with `config.reset.yes=true`.

  Raises:
    UserError: the directory is no work directory of this program.
  """
  options = loaded_run.read_options(Options, config, 'reset')
  if stored_config(workdir) is None:
    raise UserError(
      f'{workdir} has no {CONFIG}, so it is not a work directory of this program; '
      f'nothing is deleted; correct --workdir'
    )
  present = [path for pattern in _patterns() for path in sorted(workdir.glob(pattern))]
  for path in present:
    print(f'{"deleting" if options.yes else "would delete"} {path} ({_size(path)})')
  if not options.yes:
    print('nothing was deleted; add --config.reset.yes=true to delete')
    return 0
  for path in present:
    # Only the link itself is deleted where a folder is a link.
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
  left = sorted(p.name for p in workdir.iterdir())
  if left:
    print(f'kept other files: {", ".join(left)}')
  else:
    workdir.rmdir()
  return 0


def _patterns() -> list[str]:
  """Returns patterns of all that modes write into a work directory.

  The config goes last: after an interruption the rest can still be reset.
  """
  from hvae_tpu.modes import MODES  # the table imports this file

  return [folder for mode in MODES.values() for folder in mode.FOLDERS] + [CONFIG]


def _size(path: Path) -> str:
  files = [path] if path.is_file() else [p for p in path.rglob('*') if p.is_file()]
  return f'{len(files)} files, {sum(p.stat().st_size for p in files) / 2**20:.1f} MiB'
