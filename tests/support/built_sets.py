"""Reads built data sets with nothing but ArrayRecord, for tests of builders."""

import json
from pathlib import Path
from typing import Any

from array_record.python import array_record_module
import numpy as np


def card_of(folder: Path) -> dict[str, Any]:
  return json.loads((folder / 'dataset.json').read_text())


def read_split(folder: Path, split: str) -> dict[str, np.ndarray]:
  """Returns all records of a split: an array [N, ...] for each field."""
  card, records = card_of(folder), []
  for shard in card['splits'][split]['shards']:
    reader = array_record_module.ArrayRecordReader(str(folder / shard['file']))
    records += reader.read_all()
    reader.close()
  arrays, start = {}, 0
  for name, field in card['fields'].items():
    kind = np.dtype(field['dtype']).newbyteorder('<')
    stop = start + int(np.prod(field['shape'], dtype=int)) * kind.itemsize
    joined = b''.join(record[start:stop] for record in records)
    arrays[name] = np.frombuffer(joined, kind).reshape(len(records), *field['shape'])
    start = stop
  assert all(len(record) == start for record in records)
  return arrays


def files_of(folder: Path) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in folder.iterdir()}
