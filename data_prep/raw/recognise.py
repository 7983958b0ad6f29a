"""Recognition of the kind of a raw file or folder from its content, never from its name."""

import gzip
import pathlib
import struct
import tarfile
import zipfile
import zlib

from data_prep.errors import DataPrepError
from data_prep.raw import tfrecords

_HEAD = 1024  # bytes; a tar header ends at 512


def container_of(path: pathlib.Path) -> str:
  """Returns the kind of `path`.

  Returns:
    For folders `tfds` (prepared by tensorflow-datasets), `lmdb` or `folder`; for files `zip`,
    `npz`, `tar`, `npy`, `h5`, `tfrecord`, `idx`, `amat`, `pickle`, `image`, `json`, `html`,
    `empty` or `unknown`, with the suffix `.gz` if the file is gzipped.

  Raises:
    DataPrepError: `path` cannot be read, or a gzip file is damaged.
  """
  if path.is_dir():
    return _kind_of_folder(path)
  head = _head(path)
  if head[:2] == b'\x1f\x8b':
    try:
      with gzip.open(path) as file:
        return _kind_of_bytes(file.read(_HEAD)) + '.gz'
    except (OSError, EOFError, zlib.error) as error:
      raise DataPrepError(f'{path} is a damaged gzip file ({error}); download it again') from error
  if head[:4] == b'PK\x03\x04':
    return _kind_of_zip(path)
  return _kind_of_bytes(head)


def refuse_page(path: pathlib.Path) -> None:
  """Raises DataPrepError if a file is a web page, as servers send when a quota is used up."""
  if path.is_file() and _kind_of_bytes(_head(path)) == 'html':
    raise DataPrepError(
      f'{path} is a web page, not data (its server asked for a login or its quota was used up); '
      'fetch the file in a browser and give it with --raw=PATH'
    )


def _head(path: pathlib.Path) -> bytes:
  try:
    with open(path, 'rb') as file:
      return file.read(_HEAD)
  except OSError as error:
    raise DataPrepError(f'{path} cannot be read: {error.strerror}') from error


def _kind_of_folder(path: pathlib.Path) -> str:
  names = {child.name for child in path.iterdir()}
  if {'dataset_info.json', 'features.json'} <= names:
    return 'tfds'
  return 'lmdb' if 'data.mdb' in names else 'folder'


def _kind_of_zip(path: pathlib.Path) -> str:
  try:
    with zipfile.ZipFile(path) as archive:
      names = archive.namelist()
  except (zipfile.BadZipFile, OSError):
    return 'zip'  # opening it as an archive reports the damage
  return 'npz' if names and all(name.endswith('.npy') for name in names) else 'zip'


def _kind_of_bytes(head: bytes) -> str:
  if not head:
    return 'empty'
  for magic, kind in (
    (b'\x93NUMPY', 'npy'),
    (b'\x89HDF\r\n', 'h5'),
    (b'\x89PNG\r\n', 'image'),
    (b'\xff\xd8\xff', 'image'),
    (b'PK\x03\x04', 'zip'),
  ):
    if head.startswith(magic):
      return kind
  if head[:3] == b'\x00\x00\x08' and head[3:4] in (b'\x01', b'\x02', b'\x03', b'\x04'):
    return 'idx'
  if head[257:262] == b'ustar' or _is_old_tar(head):
    return 'tar'
  if tfrecords.starts_with_record(head):
    return 'tfrecord'
  if head[:1] == b'\x80' and head[1:2] in (b'\x02', b'\x03', b'\x04', b'\x05'):
    return 'pickle'
  return _kind_of_text(head)


def _kind_of_text(head: bytes) -> str:
  start = head.lstrip(b'\xef\xbb\xbf \t\r\n').lower()
  if start.startswith((b'<!doctype', b'<html', b'<head', b'<?xml')):
    return 'html'
  if start.startswith((b'{', b'[')):
    return 'json'
  return 'amat' if not start.strip(b'01 \r\n') else 'unknown'


def _is_old_tar(head: bytes) -> bool:
  """Recognises a tar of before 1988, which has no magic, by the checksum of its header."""
  try:
    tarfile.TarInfo.frombuf(head[:512], 'utf-8', 'surrogateescape')
  except (tarfile.HeaderError, struct.error):
    return False
  return True
