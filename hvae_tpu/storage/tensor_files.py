"""Reads files of tensors as NumPy arrays; the kind is recognised by the content.

Nothing in a file is executed, and a size that a file merely claims is never allocated.

PyTorch        zip archives (`torch.save` since 1.6), read without torch: torch_files.py
.npz           zip archives of .npy files
safetensors    also with metadata
flax msgpack   `flax.serialization.to_bytes`, which flax's checkpoints are made of
TensorFlow     several files of one prefix, read by TensorFlow: tensorflow_files.py
"""

from collections.abc import Callable, Mapping
import hashlib
import math
import os
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
import zipfile
import zlib

from flax import serialization
import jax
import numpy as np
from numpy.lib import format as npy
import safetensors

from hvae_tpu.errors import UserError
from hvae_tpu.storage import tensorflow_files, torch_files

MAX_BYTES = 32 * 2**30  # more than any published weights of these systems
MAX_EXPANSION = 100  # of a compressed file; float weights barely shrink
ZIP = b'PK\x03\x04'
# A pickle of protocol 2 that begins with the magic number of torch's old format.
LEGACY_TORCH = b'\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.'
TORCH_INDEX = 'data.pkl'
# Errors of a damaged or hostile file. RuntimeError: encrypted or nested too deep.
UNSOUND = (
  ValueError,
  zipfile.BadZipFile,
  zlib.error,
  NotImplementedError,
  EOFError,
  RuntimeError,
  MemoryError,
  safetensors.SafetensorError,
)


class Container(NamedTuple):
  """The content of a file.

  Attributes:
    kind: kind of the file, in words.
    tree: mappings and sequences of arrays, numbers and strings, as they are stored.
    metadata: strings beside the tensors (safetensors only).
    sha256: checksum of the whole file; for several files, of their bytes one after another.
  """

  kind: str
  tree: Any
  metadata: Mapping[str, str]
  sha256: str


def read(path: str | os.PathLike) -> Container:
  """Reads a file of any of the kinds above.

  Args:
    path: the file; for a TensorFlow checkpoint also its prefix, or its folder.

  Raises:
    UserError: no such file, of no known kind, or damaged, malicious or too large.
  """
  path = Path(path)
  kind = 'file of weights'
  try:
    prefix = tensorflow_files.find(path)
    files = [path] if prefix is None else tensorflow_files.parts(prefix)
    size = sum(file.stat().st_size for file in files)
    if size > MAX_BYTES:
      raise UserError(f'{path} has {size:,} bytes; files above {MAX_BYTES:,} are not read')
    digest = hashlib.sha256()
    for part in files:
      with part.open('rb') as file:
        hashlib.file_digest(file, lambda: digest)
    if prefix is None:
      kind, reader = _recognise(path, size)
      tree, metadata = reader(path)
    else:
      kind = 'TensorFlow checkpoint'
      tree, metadata = tensorflow_files.read(prefix), {}
  except UNSOUND as error:
    raise UserError(
      f'{path} is not a sound {kind}: {" ".join(str(error).split())[:300] or repr(error)}; '
      f'get or save the file again'
    ) from error
  except OSError as error:
    raise UserError(
      f'{path} cannot be read ({error.strerror or error}); give the path of a file of weights'
    ) from error
  return Container(kind, tree, metadata, digest.hexdigest())


Reader = Callable[[Path], tuple[Any, Mapping[str, str]]]


def _recognise(path: Path, size: int) -> tuple[str, Reader]:
  """Returns kind and reader, by the first bytes and the size."""
  with path.open('rb') as file:
    head = file.read(32)
  if head.startswith(ZIP):
    return _recognise_zip(path)
  if head.startswith(LEGACY_TORCH):
    return 'old PyTorch file', _read_legacy_torch
  if len(head) > 8 and head[8:9] == b'{' and int.from_bytes(head[:8], 'little') <= size - 8:
    return 'safetensors file', _read_safetensors
  if head and (0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF)):
    return 'flax msgpack file', _read_msgpack
  raise UserError(
    f'{path} ({size:,} bytes, starting with {head[:8].hex(" ") or "nothing"}) is none of the files '
    f'that can be read: PyTorch zip archive, .npz, safetensors, flax msgpack, TensorFlow '
    f'checkpoint; correct the path, or save the weights in one of these'
  )


def _recognise_zip(path: Path) -> tuple[str, Reader]:
  with zipfile.ZipFile(path) as archive:
    names = archive.namelist()
  if any(name.rpartition('/')[2] == TORCH_INDEX for name in names):
    return 'PyTorch file', _read_torch
  if names and all(name.endswith('.npy') for name in names):
    return '.npz file', _read_npz
  raise UserError(
    f'{path} is a zip archive of {", ".join(names[:3]) or "nothing"}, expected {TORCH_INDEX} '
    f'(PyTorch) or .npy files (.npz); if it was packed around the weights, unpack it first'
  )


def _open_zip(path: Path) -> zipfile.ZipFile:
  """Opens an archive; refuses claimed sizes out of proportion to the file's."""
  archive = zipfile.ZipFile(path)
  claimed, real = sum(info.file_size for info in archive.infolist()), path.stat().st_size
  # A small file may be all zeros, which shrink without bound.
  if claimed > max(MAX_EXPANSION * real, 2**20) or claimed > MAX_BYTES:
    archive.close()
    raise ValueError(f'{claimed:,} bytes are said to be packed into {real:,}')
  return archive


def _read_torch(path: Path) -> tuple[Any, Mapping[str, str]]:
  with _open_zip(path) as archive:
    return torch_files.read(archive, TORCH_INDEX), {}


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
  arrays = {}
  with _open_zip(path) as archive:
    for info in archive.infolist():
      name = info.filename.removesuffix('.npy')
      if name in arrays:
        raise ValueError(f'{name!r} occurs twice')
      with archive.open(info) as file:
        arrays[name] = _read_npy(name, file, info.file_size)
  return arrays, {}


def _read_npy(name: str, file: BinaryIO, size: int) -> np.ndarray:
  """Reads one array of an archive; `size` is the size of its whole .npy file."""
  version = npy.read_magic(file)
  readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
  if version not in readers:
    raise ValueError(f'{name!r} is of .npy version {version}')
  shape, fortran_order, dtype = readers[version](file)
  if dtype.hasobject or dtype.names:
    raise ValueError(f'{name!r} holds {dtype}, not plain numbers')
  expected = math.prod(shape) * dtype.itemsize
  if min(shape, default=0) < 0 or expected != size - file.tell():
    raise ValueError(
      f'{name!r} claims {dtype} {shape}, {expected:,} bytes, but holds {size - file.tell():,}'
    )
  array = np.frombuffer(file.read(), dtype) if expected else np.zeros(0, dtype)
  return array.reshape(shape, order='F' if fortran_order else 'C')


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
  """Reads tensors; the library checks that the header's offsets cover the file exactly."""
  with safetensors.safe_open(path, framework='np') as file:
    return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def _read_msgpack(path: Path) -> tuple[Any, Mapping[str, str]]:
  """Reads a tree; the decoder bounds lengths by the file's bytes, and its own depth."""
  try:
    return serialization.msgpack_restore(path.read_bytes()), {}
  except Exception as error:  # numpy's, msgpack's and flax's have no common type
    raise ValueError(f'{type(error).__name__}: {error}') from error


def _read_legacy_torch(path: Path) -> tuple[Any, Mapping[str, str]]:
  """Reads a file of PyTorch before 1.6 by torch: pickles with bytes in between."""
  try:
    import torch
  except ImportError as error:
    raise UserError(
      f'{path} is in the format of PyTorch before 1.6, which only torch can read: install torch '
      f'and try again (it is read with weights_only=True), or save the state dict anew with '
      f'PyTorch 1.6 or later'
    ) from error
  try:
    loaded = torch.load(path, map_location='cpu', weights_only=True)
    return jax.tree.map(lambda v: v.numpy() if isinstance(v, torch.Tensor) else v, loaded), {}
  except Exception as error:  # torch raises anything
    raise ValueError(f'torch: {error}') from error
