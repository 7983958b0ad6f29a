"""Reader of TFRecord files and of the tf.Example messages in them, without TensorFlow.

A record is its length (8 bytes), a masked CRC-32C of that, the payload, and a masked CRC-32C of the
payload, all little-endian. A tf.Example is a protocol buffer: Example.features (1) ->
Features.feature (1, a map) -> Feature with one of bytes_list (1), float_list (2), int64_list (3).
The values of each list are in field 1.
"""

from collections.abc import Iterator
import dataclasses
import gzip
import pathlib
import struct
from typing import BinaryIO
import zlib

import google_crc32c
import numpy as np

from data_prep.errors import DataPrepError

_MAX_RECORD = 2**30  # bytes; a longer length is damage that its own checksum missed
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
Value = list[bytes] | np.ndarray


def starts_with_record(head: bytes) -> bool:
  """Returns whether the first bytes of a file, at least twelve, are the header of a record."""
  return len(head) >= 12 and _masked_crc(head[:8]) == struct.unpack('<I', head[8:12])[0]


@dataclasses.dataclass(frozen=True)
class RecordFile:
  """Positions of the records of one uncompressed file, which may be a part of a tar.

  Attributes:
    path: the file on disk.
    offsets: positions of the payloads in that file, bytes.
    lengths: sizes of the payloads, bytes.
  """

  path: pathlib.Path
  offsets: tuple[int, ...]
  lengths: tuple[int, ...]

  def read(self, index: int) -> bytes:
    """Reads one payload and compares its checksum.

    Raises:
      DataPrepError: the payload is damaged.
    """
    with open(self.path, 'rb') as file:
      file.seek(self.offsets[index])
      payload = file.read(self.lengths[index])
      return _checked(payload, file.read(4), self.path, index)


def index_file(path: pathlib.Path, start: int = 0, size: int | None = None) -> RecordFile:
  """Finds the records of an uncompressed file; reads only their headers.

  Args:
    path: a TFRecord file, or a tar that holds one at `start` of `size` bytes.

  Raises:
    DataPrepError: a header is damaged, or the file ends inside a record.
  """
  offsets, lengths = [], []
  with open(path, 'rb') as file:
    stop = start + size if size is not None else file.seek(0, 2)
    position = start
    while position < stop:
      file.seek(position)
      length = _read_length(file, path, len(offsets))
      if position + length + 16 > stop:
        raise _cut_off(path, len(offsets))
      offsets.append(position + 12)
      lengths.append(length)
      position += length + 16
  return RecordFile(path, tuple(offsets), tuple(lengths))


def read_gzipped(path: pathlib.Path) -> Iterator[bytes]:
  """Yields the payloads of a gzipped file in order and compares their checksums.

  Raises:
    DataPrepError: a record is damaged, or the file ends inside a record.
  """
  index = 0
  try:
    with gzip.open(path) as file:
      while (length := _read_length(file, path, index, may_end=True)) is not None:
        payload = file.read(length)
        if len(payload) < length:
          raise _cut_off(path, index)
        yield _checked(payload, file.read(4), path, index)
        index += 1
  except EOFError as error:
    raise _cut_off(path, index) from error
  except (OSError, zlib.error) as error:
    raise DataPrepError(
      f'{path}: record {index} is damaged ({error}); download it again'
    ) from error


def parse_example(payload: bytes) -> dict[str, Value]:
  """Parses the features of a tf.Example: lists of bytes, float32 [n] or int64 [n].

  A bytes feature whose elements all have one byte becomes uint8 [n]; the multi-object data sets
  store pictures in this way.

  Raises:
    ValueError: the payload is not a tf.Example.
  """
  parsed = {}
  for number, features in _fields(payload):
    if number != 1:
      continue
    for _, entry in _fields(features):
      parts = dict(_fields(entry))
      if 1 not in parts:
        raise ValueError('a feature has no name')
      parsed[bytes(_message(parts[1])).decode()] = _parse_feature(parts.get(2, b''))
  return parsed


def _parse_feature(feature: bytes | memoryview | int) -> Value:
  for number, values in _fields(feature):
    if number == 1:
      return _parse_bytes(values)
    if number == 2:
      return _parse_floats(values)
    if number == 3:
      return _parse_ints(values)
  return np.zeros(0, np.float32)


def _parse_bytes(values: memoryview | int) -> Value:
  values = _message(values)
  raw = np.frombuffer(values, np.uint8)
  if len(raw) % 3 == 0 and len(raw):
    rows = raw.reshape(-1, 3)  # tag 0x0a, length 1, the byte
    if (rows[:, 0] == 0x0A).all() and (rows[:, 1] == 1).all():
      return rows[:, 2].copy()
  return [bytes(_message(value)) for number, value in _fields(values) if number == 1]


def _parse_floats(values: memoryview | int) -> np.ndarray:
  parts = [bytes(_message(value)) for number, value in _fields(values) if number == 1]
  return np.frombuffer(b''.join(parts), '<f4').astype(np.float32)


def _parse_ints(values: memoryview | int) -> np.ndarray:
  numbers = []
  for _, value in _fields(values):
    if isinstance(value, int):
      numbers.append(value)
    else:  # packed
      position = 0
      while position < len(value):
        number, position = _varint(value, position)
        numbers.append(number)
  return np.array(numbers, np.uint64).astype(np.int64)


def _message(value: bytes | memoryview | int) -> memoryview:
  """Returns the value of a field that must be text, bytes or a nested message."""
  if isinstance(value, int):
    raise ValueError('a field is a number where bytes must be')
  return memoryview(value)


def _fields(message: bytes | memoryview | int) -> Iterator[tuple[int, memoryview | int]]:
  """Yields (number, value) of each field of a protocol buffer message."""
  message = _message(message)
  position = 0
  while position < len(message):
    tag, position = _varint(message, position)
    number, kind = tag >> 3, tag & 7
    if kind == _VARINT:
      value, position = _varint(message, position)
      yield number, value
      continue
    if kind == _BYTES:
      length, position = _varint(message, position)
    elif kind in (_FIXED32, _FIXED64):
      length = 4 if kind == _FIXED32 else 8
    else:
      raise ValueError(f'unknown wire type {kind}')
    if position + length > len(message):
      raise ValueError('a field ends behind its message')
    yield number, message[position : position + length]
    position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
  """Reads a variable-length integer; returns it and the position behind it."""
  value = 0
  for shift in range(0, 70, 7):
    if position >= len(message):
      raise ValueError('a number ends behind its message')
    byte = message[position]
    position += 1
    value |= (byte & 0x7F) << shift
    if byte < 0x80 and value < 2**64:
      return value, position
  raise ValueError('a number is longer than 64 bits')


def _read_length(
  file: BinaryIO | gzip.GzipFile, path: pathlib.Path, index: int, may_end: bool = False
) -> int | None:
  """Reads the length of the next record; returns None at the end of the file if `may_end`."""
  header = file.read(12)
  if not header and may_end:
    return None
  if len(header) < 12:
    raise _cut_off(path, index)
  length, crc = struct.unpack('<QI', header)
  if _masked_crc(header[:8]) != crc or length > _MAX_RECORD:
    raise DataPrepError(
      f'{path}: the length of record {index} does not match its checksum; download the file again'
    )
  return length


def _checked(payload: bytes, footer: bytes, path: pathlib.Path, index: int) -> bytes:
  """Returns a payload whose checksum matches its footer."""
  if len(footer) < 4:
    raise _cut_off(path, index)
  if _masked_crc(payload) != struct.unpack('<I', footer)[0]:
    raise DataPrepError(
      f'{path}: record {index} does not match its checksum; download the file again'
    )
  return payload


def _cut_off(path: pathlib.Path, index: int) -> DataPrepError:
  return DataPrepError(
    f'{path} ends inside record {index}: it is truncated; download the file again'
  )


def _masked_crc(data: bytes) -> int:
  crc = google_crc32c.value(bytes(data))
  return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
