"""Writers of raw files in the exact layouts in which data sets are published, by hand.

None of them shares code with the readers: what a reader gets wrong must not be wrong here too.
"""

from collections.abc import Mapping, Sequence
import gzip
import io
import json
from pathlib import Path
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image

Files = Mapping[str, bytes]


def pictures(count: int, height: int, channels: int = 3, *, width: int = 0, seed: int = 0):
  """Returns noise, uint8 [count, height, width or height, channels]."""
  shape = (count, height, width or height, channels)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(image: np.ndarray, kind: str = 'png') -> bytes:
  """Returns a picture file of uint8 [H, W, 3] or [H, W, 1]."""
  buffer = io.BytesIO()
  Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, kind)
  return buffer.getvalue()


def write_folder(folder: Path, files: Files) -> Path:
  for name, data in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  return folder


def write_zip(path: Path, files: Files) -> Path:
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, data in files.items():
      archive.writestr(name, data)
  return path


def write_tar(path: Path, files: Files, mode: str = 'w') -> Path:
  with tarfile.open(path, mode) as archive:
    for name, data in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      archive.addfile(member, io.BytesIO(data))
  return path


def idx(array: np.ndarray) -> bytes:
  """Returns a file of LeCun's: magic 2049 for one axis, 2051 for three; sizes big-endian."""
  magic = {1: 2049, 3: 2051}[array.ndim]
  return struct.pack(f'>{1 + array.ndim}i', magic, *array.shape) + array.tobytes()


def mnist_files(train: np.ndarray, test: np.ndarray, labels: Mapping[str, np.ndarray]) -> Files:
  """Returns the four gzipped files; digits are [N, 28, 28]."""
  raw = {
    'train-images-idx3-ubyte.gz': train,
    'train-labels-idx1-ubyte.gz': labels['train'],
    't10k-images-idx3-ubyte.gz': test,
    't10k-labels-idx1-ubyte.gz': labels['test'],
  }
  return {name: gzip.compress(idx(array)) for name, array in raw.items()}


def amat(bits: np.ndarray) -> bytes:
  """Larochelle's text: a line for each row of bits [N, 784]."""
  return b''.join(b' '.join(b'01'[bit : bit + 1] for bit in row) + b'\n' for row in bits)


def planes(images: np.ndarray) -> np.ndarray:
  """Returns uint8 [N, R, R, 3] as rows of all red, all green, then all blue pixels."""
  return np.stack([np.concatenate([image[..., c].ravel() for c in range(3)]) for image in images])


def python2_batch(pixels: np.ndarray, labels: Sequence[int], key: bytes = b'data') -> bytes:
  """Returns a batch of CIFAR-10 as Python 2 and NumPy 1 pickled it: all text as bytes."""
  short = lambda text: b'U' + bytes([len(text)]) + text
  number = lambda value: b'J' + struct.pack('<i', value)
  sizes = number(pixels.shape[0]) + number(pixels.shape[1]) + b'\x86'
  kind = b'cnumpy\ndtype\n' + short(pixels.dtype.str[1:].encode()) + b'K\x00K\x01\x87R'
  kind += b'(K\x03' + short(b'|') + b'NNN' + number(-1) + number(-1) + b'K\x00tb'
  array = (
    b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85' + short(b'b') + b'\x87R'
  )
  raw = pixels.tobytes()
  array += b'(K\x01' + sizes + kind + b'\x89T' + struct.pack('<i', len(raw)) + raw + b'tb'
  items = (
    short(b'batch_label') + short(b'training batch 1 of 5'),
    short(b'labels') + b'](' + b''.join(map(number, labels)) + b'e',
    short(key) + array,
    short(b'filenames') + b'](' + b''.join(short(b'a.png') for _ in labels) + b'e',
  )
  return b'\x80\x02}(' + b''.join(items) + b'u.'


def cifar_files(
  images: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, binary: bool
) -> Files:
  """Returns five batches of equal size and the test batch, pickled or binary."""
  batches = zip(np.split(planes(images), 5), np.split(labels, 5), strict=True)
  named = {f'data_batch_{n}': batch for n, batch in enumerate(batches, 1)}
  named['test_batch'] = planes(test), test_labels
  if binary:
    rows = {k: np.concatenate([c[:, None], p], 1).tobytes() for k, (p, c) in named.items()}
    files = {f'cifar-10-batches-bin/{k}.bin': data for k, data in rows.items()}
    return files | {'cifar-10-batches-bin/batches.meta.txt': b'airplane\n'}
  pickled = {k: python2_batch(p, c.tolist()) for k, (p, c) in named.items()}
  files = {f'cifar-10-batches-py/{k}': data for k, data in pickled.items()}
  return files | {'cifar-10-batches-py/batches.meta': b'\x80\x02}.'}


def planar_npz(images: np.ndarray) -> bytes:
  """Returns a batch of the box-filtered ImageNet: data, labels from 1 on, and the mean picture."""
  buffer = io.BytesIO()
  flat = planes(images)
  np.savez(buffer, data=flat, labels=np.arange(1, len(flat) + 1), mean=flat.mean(0))
  return buffer.getvalue()


def varint(value: int) -> bytes:
  data = b''
  while value > 127:
    data += bytes([value & 127 | 128])
    value >>= 7
  return data + bytes([value])


def field(number: int, data: bytes) -> bytes:
  """Returns a field of a protocol buffer that holds bytes."""
  return varint(number << 3 | 2) + varint(len(data)) + data


def example(**features: bytes | int | Sequence[int]) -> bytes:
  """Returns a tf.Example of bytes and integers, as TensorFlow writes it: integers packed."""
  entries = b''
  for name, value in features.items():
    if isinstance(value, bytes):
      feature = field(1, field(1, value))
    else:
      values = [value] if isinstance(value, int) else value
      feature = field(3, field(1, b''.join(map(varint, values))))
    entries += field(1, field(1, name.encode()) + field(2, feature))
  return field(1, entries)


def tfrecord(payloads: Sequence[bytes]) -> bytes:
  """Returns records: length, its masked CRC-32C, payload, its masked CRC-32C."""
  records = b''
  for payload in payloads:
    length = struct.pack('<Q', len(payload))
    records += length + _masked_crc(length) + payload + _masked_crc(payload)
  return records


def glow_files(images: np.ndarray, part: str, level: int, shards: int, of: int) -> Files:
  """Returns raw pixels in shards: `train/train-r05-s-0000-of-2000.tfrecords` and so on."""
  files = {}
  for number, group in enumerate(np.array_split(images, shards)):
    payloads = [example(shape=i.shape, data=i.tobytes(), label=7) for i in group]
    name = f'{part}/{part}-r{level:02d}-s-{number:04d}-of-{of:04d}.tfrecords'
    files[name] = tfrecord(payloads)
  return files


def prepared_files(name: str, splits: Mapping[str, Sequence[bytes]]) -> Files:
  """Returns a folder as tensorflow-datasets leaves it: payloads, a shard for each split."""
  info = {
    'name': name,
    'fileFormat': 'tfrecord',
    'splits': [{'name': k, 'shardLengths': [str(len(v))]} for k, v in splits.items()],
  }
  shards = {f'{name}-{k}.tfrecord-00000-of-00001': tfrecord(v) for k, v in splits.items()}
  return {'dataset_info.json': json.dumps(info).encode(), 'features.json': b'{}', **shards}


def _masked_crc(data: bytes) -> bytes:
  """Returns CRC-32C (polynomial 0x1EDC6F41, reflected), masked as TensorFlow does."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc = _TABLE[(crc ^ byte) & 255] ^ crc >> 8
  crc ^= 0xFFFFFFFF
  return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _table_entry(value: int) -> int:
  for _ in range(8):
    value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
  return value


_TABLE = [_table_entry(value) for value in range(256)]
