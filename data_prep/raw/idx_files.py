"""The four idx files of MNIST and of sets in its form: images and labels, train and test."""

from collections.abc import Mapping
import gzip
import hashlib
import io
import pathlib
import re
import zlib

import numpy as np

from data_prep.core.request import About
from data_prep.errors import DataPrepError
from data_prep.raw import archives, parts, recognise

ROLES = {  # role -> rule of the file's name
  'train images': r'train.*images',
  'train labels': r'train.*labels',
  'test images': r't10k.*images',
  'test labels': r't10k.*labels',
}
_MAX_FILE = 2**27  # bytes of an unpacked idx file


def read_files(paths: tuple[pathlib.Path, ...], about: About) -> dict[str, tuple[bytes, str]]:
  """Reads role -> (unpacked bytes, name) of the four files, single or in one folder, zip or tar.

  Raises:
    DataPrepError: a file is missing or is a damaged gzip file.
  """
  if len(paths) == 1 and recognise.container_of(paths[0]) in ('zip', 'tar', 'tar.gz', 'folder'):
    archive = archives.open_archive(paths[0])
    files = {}
    for role, rule in ROLES.items():
      matches = (i for i, n in enumerate(archive.names) if re.search(rule, n.rsplit('/', 1)[-1]))
      index = next(matches, None)
      if index is None:
        raise DataPrepError(f'{paths[0]} holds no {role} (a name like {rule}); {about.fetch}')
      files[role] = _unpacked(archive.read(index), archive.names[index])
    return files
  given = parts.by_role(paths, ROLES)
  files = {role: parts.one(given[role], role) for role in given}
  return {role: _unpacked(path.read_bytes(), path.name) for role, path in files.items()}


def parse_split(
  files: Mapping[str, tuple[bytes, str]], split: str
) -> tuple[np.ndarray, np.ndarray]:
  """Parses the images [N, H, W] and the labels [N] of a split, uint8.

  Raises:
    DataPrepError: a file is no idx file, or is truncated.
  """
  images, labels = (_parse(*files[f'{split} {kind}']) for kind in ('images', 'labels'))
  return images, labels


def checked_labels(image: np.ndarray, label: np.ndarray, name: str) -> np.ndarray:
  """Returns the labels of a split, uint8 [N] from 0 to 9; its images must be uint8 [N, 28, 28].

  Raises:
    DataPrepError: other shapes, or labels that are not whole numbers from 0 to 9.
  """
  if image.dtype != np.uint8 or image.shape[1:] != (28, 28) or label.shape != image.shape[:1]:
    raise DataPrepError(
      f'the {name} files must hold N pictures, uint8 of 28x28, and N labels, but hold '
      f'{image.dtype} {list(image.shape)} and {list(label.shape)}'
    )
  whole = label.dtype.kind in 'iu'
  if not whole or label.min(initial=0) < 0 or label.max(initial=0) > 9:
    raise DataPrepError(f'the labels of {name} must be whole numbers from 0 to 9')
  return label.astype(np.uint8)


def check_contents(
  files: Mapping[str, tuple[bytes, str]], published: Mapping[str, str], unverified: bool
) -> tuple[dict[str, str], tuple[str, ...]]:
  """Compares the unpacked bytes with published ones: compressed files differ with their packer.

  Args:
    files: role -> (unpacked bytes, name).
    published: role -> hex SHA-256.
    unverified: accept other bytes.

  Returns:
    Name -> hex SHA-256 of the unpacked bytes, and lines for the check list.

  Raises:
    DataPrepError: other bytes, and not `unverified`.
  """
  hashes, lines = {}, []
  for role, (data, name) in files.items():
    hashes[name] = hashlib.sha256(data).hexdigest()
    if hashes[name] == published[role]:
      lines.append(f'[ok] sha256 of the unpacked {name} matches the published one')
    elif unverified:
      lines.append(f'[warn] sha256 of the unpacked {name} is not the published {published[role]}')
    else:
      raise DataPrepError(
        f'{name} has the unpacked sha256 {hashes[name]}, but the published file has '
        f'{published[role]}; download it again, or add --unverified to take it as it is'
      )
  return hashes, tuple(lines)


def _unpacked(data: bytes, name: str) -> tuple[bytes, str]:
  """Returns the bytes, unpacked if they are gzipped, and the name."""
  if data[:2] != b'\x1f\x8b':
    return data, name
  try:
    with gzip.open(io.BytesIO(data)) as file:
      return file.read(_MAX_FILE), name
  except (OSError, EOFError, zlib.error) as error:
    raise DataPrepError(f'{name} is a damaged gzip file ({error}); download it again') from error


def _parse(data: bytes, name: str) -> np.ndarray:
  """Parses an unpacked idx file: uint8 of the shape in its header."""
  if data[:3] != b'\x00\x00\x08' or data[3:4] not in (b'\x01', b'\x03'):
    raise DataPrepError(
      f'{name} must be an idx file (magic 2051 or 2049), but begins with {data[:4].hex()}'
    )
  start = 4 + 4 * data[3]
  if len(data) < start:
    raise DataPrepError(f'{name} ends inside its header: it is truncated; download it again')
  shape = np.frombuffer(data[4:start], '>u4').astype(np.int64)
  if len(data) - start != shape.prod():
    raise DataPrepError(
      f'{name} must hold {shape.prod()} bytes for the shape {shape.tolist()}, but holds '
      f'{len(data) - start}: it is truncated; download it again'
    )
  return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
