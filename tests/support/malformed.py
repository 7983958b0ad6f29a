"""Malformed raw files: their names, contents, and expected messages."""

import dataclasses
import io
from pathlib import Path
import tarfile
from typing import Any
import zipfile

import numpy as np
import pytest

from data_prep import build as command
from data_prep.errors import DataPrepError
from tests.support import raw_files

PAGE = b'<!DOCTYPE html>\n<html><title>Google Drive - Quota exceeded</title></html>'


@dataclasses.dataclass(frozen=True)
class Case:
  """Raw files by name, the given ones among them, and the expected message.

  `raw` is `.` for the folder with all of them.
  """

  name: str
  message: str
  files: dict[str, bytes]
  raw: tuple[str, ...] = ('.',)
  options: dict[str, Any] = dataclasses.field(default_factory=dict)


def one_file(name: str, message: str, data: bytes) -> Case:
  return Case(name, message, {'raw': data}, ('raw',))


def refuse(case: Case, folder: Path) -> None:
  """Builds, and asserts a refusal in one sentence with nothing left behind."""
  raw = raw_files.write_folder(folder / 'raw', case.files)
  raw.mkdir(exist_ok=True)
  with pytest.raises(DataPrepError, match=case.message) as caught:
    command.build(case.name, folder / 'out', raw=[raw / path for path in case.raw], **case.options)
  assert '\n' not in str(caught.value)
  assert not (folder / 'out' / case.name).exists()
  assert not list((folder / 'out').glob('*.tmp-*/*'))


def tar_of(files: dict[str, bytes], mode: str = 'w') -> bytes:
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode=mode) as archive:
    for name, data in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      archive.addfile(member, io.BytesIO(data))
  return buffer.getvalue()


def tar_with(name: str, kind: bytes = tarfile.REGTYPE, link: str = '') -> bytes:
  """Returns a tar with an empty member of this kind behind another one."""
  buffer = io.BytesIO(tar_of({'0.png': b'0'}))
  with tarfile.open(fileobj=buffer, mode='a') as archive:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    archive.addfile(member)
  return buffer.getvalue()


def zip_of(files: dict[str, bytes], mode: int = 0, flags: int = 0) -> bytes:
  """Writes a zip, stored, not deflated; `mode` as of Unix; `flags` 1: encrypted."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    for name, data in files.items():
      info = zipfile.ZipInfo(name)
      info.external_attr = mode << 16
      archive.writestr(info, data)
  data = bytearray(buffer.getvalue())
  data[6] |= flags  # in the header before the member
  data[data.index(b'PK\x01\x02') + 8] |= flags  # in the directory
  return bytes(data)


def npy(array: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  np.save(buffer, array)
  return buffer.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  return buffer.getvalue()


def flipped(data: bytes, place: int) -> bytes:
  """Returns the data with one bit changed."""
  changed = bytearray(data)
  changed[place] ^= 1
  return bytes(changed)
