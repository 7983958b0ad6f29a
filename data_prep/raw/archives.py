"""Archives: folders, zips and tars with one interface: sorted file names, and the bytes of each.

Nothing is unpacked to disk. Links, devices and members whose name leads out of the folder are
refused before anything is read. A limit on the bytes of a member depends on its kind.
"""

import dataclasses
import functools
import io
import os
import pathlib
import stat
import tarfile
import zipfile
import zlib

from data_prep.errors import DataPrepError
from data_prep.raw import recognise

MAX_MEMBER = 2**28  # bytes of one member; the largest real one is a shard of CelebA-HQ, 45 MB
MAX_NPZ = 2**31  # bytes of a member that is an npz; the largest real one, ImageNet 64x64, has 1.6e9
_MAX_GZIPPED = 2**30  # bytes of a whole tar.gz, which is held in memory
_BLOCK = 2**20  # bytes
_IGNORED = ('__MACOSX/', '.DS_Store', 'Thumbs.db')


@dataclasses.dataclass(frozen=True)
class Archive:
  """A folder, zip, tar or tar.gz; it pickles small and opens its file on use.

  Attributes:
    path: path of the folder or file.
    kind: `folder`, `zip`, `tar` or `tar.gz`.
    names: names of all regular files, sorted, with `/` between folders.
    ranges: for a tar, (first byte, size) of each file; () for other kinds.
  """

  path: pathlib.Path
  kind: str
  names: tuple[str, ...]
  ranges: tuple[tuple[int, int], ...] = ()

  def read(self, index: int) -> bytes:
    """Returns the bytes of the file `names[index]`.

    Raises:
      DataPrepError: the file is damaged, truncated or too large.
    """
    name = self.names[index]
    if self.kind == 'folder':
      return _read_file(self.path / name)
    if self.kind == 'zip':
      return _read_zipped(self.path, name)
    if self.kind == 'tar.gz':
      return _unpack_gzipped(self.path)[name]
    start, size = self.ranges[index]
    with open(self.path, 'rb') as file:
      file.seek(start)
      data = file.read(size)
    if len(data) < size:
      raise DataPrepError(f'{self.path} ends inside {name}: it is truncated; download it again')
    return data


def open_archive(path: pathlib.Path) -> Archive:
  """Opens a folder, zip, tar or tar.gz; its content, not its name, tells its kind.

  Raises:
    DataPrepError: it is of another kind, is damaged, or holds a member that is refused.
  """
  kind = recognise.container_of(path)
  if kind == 'folder':
    return Archive(path, kind, _list_folder(path))
  if kind == 'zip':
    return Archive(path, kind, _list_zip(path))
  if kind == 'tar':
    members = _list_tar(path)
    names = tuple(sorted(members))
    return Archive(path, kind, names, tuple(members[name] for name in names))
  if kind == 'tar.gz':
    return Archive(path, kind, tuple(sorted(_unpack_gzipped(path))))
  recognise.refuse_page(path)
  raise DataPrepError(f'{path} must be a folder, zip or tar, but its content is: {kind}')


def check_unpacked(file: pathlib.Path | io.BytesIO, origin: str) -> None:
  """Raises DataPrepError if an npz unpacks to more bytes than any raw file has."""
  with zipfile.ZipFile(file) as archive:
    size = sum(info.file_size for info in archive.infolist())
  if size > MAX_NPZ:
    raise DataPrepError(f'{origin} unpacks to {size} bytes, more than the {MAX_NPZ} allowed')


def _list_folder(path: pathlib.Path) -> tuple[str, ...]:
  names = []
  for folder, _, files in os.walk(path):
    relative = pathlib.Path(folder).relative_to(path)
    names += [(relative / file).as_posix() for file in files]
  return tuple(sorted(name for name in names if not _is_ignored(name)))


def _list_zip(path: pathlib.Path) -> tuple[str, ...]:
  names = []
  for info in _zip(path).infolist():
    if info.is_dir() or _is_ignored(info.filename):
      continue
    _check_name(path, info.filename)
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
      raise _refused(path, info.filename, 'a link or a device')
    _check_size(path, info.filename, info.file_size)
    names.append(info.filename)
  return _distinct(path, names)


def _list_tar(path: pathlib.Path) -> dict[str, tuple[int, int]]:
  """Returns name -> (first byte, size) of every regular file."""
  ranges, count = {}, 0
  try:
    with tarfile.open(path, 'r:') as archive:
      for member in archive:
        archive.members = []  # a million of them would take a gigabyte
        if _is_file(path, member):
          ranges[member.name] = (member.offset_data, member.size)
          count += 1
      _check_end(path, archive)
  except tarfile.TarError as error:
    raise DataPrepError(f'{path} is a damaged tar ({error}); download it again') from error
  size = path.stat().st_size
  if any(start + length > size for start, length in ranges.values()):
    raise DataPrepError(f'{path} ends inside a member: it is truncated; download it again')
  if count != len(ranges):
    raise DataPrepError(f'{path} holds two members of one name; unpack it and give the folder')
  return ranges


@functools.lru_cache(maxsize=1)
def _unpack_gzipped(path: pathlib.Path) -> dict[str, bytes]:
  """Reads all files of a tar.gz at once, as it allows no random access."""
  files, total = {}, 0
  try:
    with tarfile.open(path, 'r:gz') as archive:
      for member in archive:
        if not _is_file(path, member):
          continue
        total += member.size
        if total > _MAX_GZIPPED:
          raise DataPrepError(
            f'{path} holds more than {_MAX_GZIPPED} bytes and is gzipped, so it cannot be read in '
            f'parts; run: gunzip {path}'
          )
        files[member.name] = archive.extractfile(member).read()
      _check_end(path, archive)
      while archive.fileobj.read(_BLOCK):
        pass  # the checksum of a gzip is at its very end
  except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
    raise DataPrepError(
      f'{path} is a damaged or truncated tar.gz ({error}); download it again'
    ) from error
  return files


def _is_file(path: pathlib.Path, member: tarfile.TarInfo) -> bool:
  """Returns whether a member is a file to list; raises DataPrepError if it is refused."""
  if member.isdir() or _is_ignored(member.name):
    return False
  _check_name(path, member.name)
  if not member.isreg() or member.issparse():
    raise _refused(path, member.name, 'a link, a device or a file with holes')
  _check_size(path, member.name, member.size)
  return True


def _check_end(path: pathlib.Path, archive: tarfile.TarFile) -> None:
  """Raises DataPrepError if reading stopped before the empty block that ends a tar.

  Otherwise a damaged or missing header in the middle would end the list of members silently.
  """
  archive.fileobj.seek(archive.offset)
  if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
    raise DataPrepError(
      f'{path} is damaged or truncated behind byte {archive.offset}; download it again'
    )


@functools.lru_cache(maxsize=4)
def _zip(path: pathlib.Path) -> zipfile.ZipFile:
  """Opens a zip; it stays open, as reading the directory of a large zip takes seconds."""
  try:
    return zipfile.ZipFile(path)
  except (zipfile.BadZipFile, OSError) as error:
    raise DataPrepError(
      f'{path} is a damaged or truncated zip ({error}); download it again'
    ) from error


def _read_zipped(path: pathlib.Path, name: str) -> bytes:
  archive = _zip(path)
  try:
    with archive.open(name) as file:
      data = file.read(_limit_of(name) + 1)
  except (zipfile.BadZipFile, EOFError, OSError, zlib.error, NotImplementedError) as error:
    raise DataPrepError(f'{path}: {name} is damaged ({error}); download the zip again') from error
  except RuntimeError as error:  # encrypted
    raise DataPrepError(f'{path}: {name} cannot be read ({error})') from error
  _check_size(path, name, len(data))
  return data


def _read_file(path: pathlib.Path) -> bytes:
  try:
    _check_size(path.parent, path.name, path.stat().st_size)
    return path.read_bytes()
  except OSError as error:
    raise DataPrepError(f'{path} cannot be read: {error.strerror}') from error


def _is_ignored(name: str) -> bool:
  last = name.rsplit('/', 1)[-1]  # `._*` are what macOS adds
  return name.startswith(_IGNORED[0]) or last in _IGNORED or last.startswith('._')


def _check_name(path: pathlib.Path, name: str) -> None:
  parts = name.replace('\\', '/').split('/')
  if parts[0] == '' or '..' in parts or ':' in parts[0]:
    raise _refused(path, name, 'a name that leads out of its folder')


def _check_size(path: pathlib.Path, name: str, size: int) -> None:
  if size > _limit_of(name):
    raise DataPrepError(
      f'{path}: {name} has {size} bytes, more than the {_limit_of(name)} that any raw file of its '
      'kind has; nothing was read'
    )


def _limit_of(name: str) -> int:
  """Returns the largest allowed size of a file of this name, bytes."""
  return MAX_NPZ if name.endswith('.npz') else MAX_MEMBER


def _distinct(path: pathlib.Path, names: list[str]) -> tuple[str, ...]:
  if len(set(names)) != len(names):
    raise DataPrepError(f'{path} holds two members of one name; unpack it and give the folder')
  return tuple(sorted(names))


def _refused(path: pathlib.Path, name: str, what: str) -> DataPrepError:
  return DataPrepError(
    f'{path}: the member {name!r} is {what}, which no published archive holds; nothing was read'
  )
