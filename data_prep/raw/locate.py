"""Sources of the raw files of a build: the user, tensorflow-datasets, or the network."""

import os
import pathlib
import re

from data_prep.core import sources
from data_prep.core.request import About, Request
from data_prep.errors import DataPrepError
from data_prep.raw import downloads, recognise


def locate(request: Request, about: About) -> tuple[pathlib.Path, ...]:
  """Returns the raw files and folders of a build.

  The source `auto` takes `--raw` if given; else a folder that tensorflow-datasets prepared; else it
  downloads, unless the files are larger than 10 GB or behind an agreement.

  Raises:
    DataPrepError: the source is impossible or has no files.
  """
  if request.variant is not None and not about.variants:
    raise DataPrepError(
      f'--variant={request.variant}: {request.name} has only one variant; leave it out'
    )
  if request.source == 'local' or request.raw:
    return _local(request, about)
  if request.source not in ('auto', *about.sources):
    raise DataPrepError(
      f'{request.name} cannot be built with --source={request.source}, only with: '
      f'{", ".join(about.sources)}'
    )
  if request.source in ('auto', 'tfds') and about.tfds:
    if prepared := find_prepared(about.tfds):
      return (prepared,)
  if request.source == 'tfds':
    return (_prepare(about.tfds),)
  if not about.files or request.source == 'auto' and about.asks_first:
    download = ', or add --source=download' if about.files else ''
    raise DataPrepError(
      f'{request.name} needs raw files that are not fetched unasked: {about.fetch}; then give '
      f'them with --raw=PATH (once for each file or folder){download}. Licence: {about.licence}'
    )
  return _download(request, about)


def find_prepared(name: str) -> pathlib.Path | None:
  """Returns the newest version of a set that tensorflow-datasets prepared, or None."""
  root = os.environ.get('TFDS_DATA_DIR') or os.path.expanduser('~/tensorflow_datasets')
  folder = pathlib.Path(root) / name
  if not folder.is_dir():
    return None
  versions = [child for child in folder.iterdir() if _version(child)]
  return max(versions, key=lambda child: _version(child), default=None)


def _version(folder: pathlib.Path) -> tuple[int, ...]:
  """Returns (3, 0, 2) for a prepared folder called `3.0.2`; () for any other folder."""
  named = re.fullmatch(r'(\d+)\.(\d+)\.(\d+)', folder.name)
  if not named or recognise.container_of(folder) != 'tfds':
    return ()
  return tuple(map(int, named.groups()))


def check_published(
  paths: tuple[pathlib.Path, ...], about: About, unverified: bool
) -> tuple[dict[str, str], tuple[str, ...]]:
  """Hashes raw files and compares them with the published ones, by name.

  The hash of a folder is over the names and hashes of its files.

  Returns:
    Name -> hex SHA-256, and lines for the check list.

  Raises:
    DataPrepError: a file has the name of a published one, but other bytes, and not `unverified`.
  """
  known = {file.name: file for file in about.files}
  hashes, lines = {}, []
  for path in paths:
    hash_of = sources.sha256_folder if path.is_dir() else sources.sha256_file
    hashes[path.name] = hash_of(path)
    file = known.get(path.name)
    if path.is_dir() or file is None or file.sha256 is None:
      lines.append(f'[note] {path.name}: no published sha256 to compare with')
    elif hashes[path.name] == file.sha256:
      lines.append(f'[ok] sha256 of {path.name} matches the published one')
    elif unverified:
      lines.append(f'[warn] sha256 of {path.name} is not the published {file.sha256}')
    else:
      raise DataPrepError(
        f'{path} has sha256 {hashes[path.name]}, but the published file of this name has '
        f'{file.sha256}; download it again, or add --unverified to take it as it is'
      )
  return hashes, tuple(lines)


def _local(request: Request, about: About) -> tuple[pathlib.Path, ...]:
  """Returns the absolute paths of the user's raw files."""
  if not request.raw:
    raise DataPrepError(
      f'--source=local needs --raw=PATH, once for each raw file or folder of {request.name}'
      + (f': {about.fetch}' if about.fetch else '')
    )
  for path in request.raw:
    if not path.is_file() and not path.is_dir():
      problem = 'is neither a file nor a folder' if path.exists() else 'does not exist'
      raise DataPrepError(f'--raw={path} {problem}; give the raw files of {request.name}')
    if path.is_file():
      recognise.refuse_page(path)
  return tuple(pathlib.Path(os.path.abspath(path)) for path in request.raw)  # `.` has no name


def _download(request: Request, about: About) -> tuple[pathlib.Path, ...]:
  """Downloads the published files."""
  total = sum(file.bytes or 0 for file in about.files)
  size = f'{total / 1e6:,.0f} MB' if total else 'of unknown size'
  print(f'{request.name}: fetching {len(about.files)} file(s), {size}. Licence: {about.licence}')
  folder = request.downloads / request.name
  return tuple(downloads.fetch(file, folder, request.unverified) for file in about.files)


def _prepare(name: str) -> pathlib.Path:
  """Lets tensorflow-datasets download and prepare a data set."""
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise DataPrepError(
      f'no folder of {name} prepared by tensorflow-datasets was found, and preparing one needs '
      "that package; run: pip install -e '.[data]'"
    ) from error
  try:
    builder = tfds.builder(name)
    builder.download_and_prepare()
  except Exception as error:  # its own errors, and those of every library below it
    raise DataPrepError(
      f'tensorflow-datasets could not prepare {name}: {str(error).splitlines()[0]}'
    ) from error
  return pathlib.Path(builder.data_dir)
