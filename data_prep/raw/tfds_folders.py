"""Folders that tensorflow-datasets prepared, read without that package.

A folder like this holds shards of tf.Examples as TFRecords, and two json files that tell the names
of the shards. Pictures are stored as encoded files.
"""

import json
import pathlib

from data_prep.errors import DataPrepError
from data_prep.raw import tfrecords
from data_prep.raw.pictures import RecordPictures

_TEMPLATE = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'


def open_split(folder: pathlib.Path, split: str, mode: str = 'RGB') -> RecordPictures:
  """Opens the records of one split, in their stored order, which is shuffled.

  Raises:
    DataPrepError: the split is missing, the file format is not TFRecord, or a shard is missing or
      damaged.
  """
  shards = _find_shards(folder, split)
  files = []
  for path, count in shards:
    if not path.is_file():
      raise DataPrepError(f'{path} is missing; let tensorflow-datasets prepare {folder} again')
    file = tfrecords.index_file(path)
    if len(file.offsets) != count:
      raise DataPrepError(
        f'{path} holds {len(file.offsets)} records, but {folder / "dataset_info.json"} says '
        f'{count}; let tensorflow-datasets prepare it again'
      )
    files.append(file)
  return RecordPictures(tuple(files), 'tfds', mode)


def _find_shards(folder: pathlib.Path, split: str) -> list[tuple[pathlib.Path, int]]:
  """Returns (path, number of records) of every shard."""
  path = folder / 'dataset_info.json'
  try:
    info = json.loads(path.read_text())
    splits = {entry['name']: entry for entry in info['splits']}
    if split not in splits:
      raise DataPrepError(f'{folder} has no split {split!r}, only: {", ".join(splits)}')
    if info.get('fileFormat', 'tfrecord') != 'tfrecord':
      raise DataPrepError(
        f'{folder} is in the format {info["fileFormat"]}, but only tfrecord is read; prepare it '
        'again with the default format'
      )
    counts = [int(count) for count in splits[split]['shardLengths']]
    template = splits[split].get('filepathTemplate') or _TEMPLATE
    name = info['name']
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise DataPrepError(f'{path} cannot be read ({error!r}); prepare the folder again') from error
  shards = []
  for number, count in enumerate(counts):
    index, total = f'{number:05d}', f'{len(counts):05d}'
    file = template
    for key, value in (
      ('DATASET', name),
      ('SPLIT', split),
      ('FILEFORMAT', 'tfrecord'),
      ('SHARD_X_OF_Y', f'{index}-of-{total}'),
      ('SHARD_INDEX', index),
      ('NUM_SHARDS', total),
    ):
      file = file.replace('{' + key + '}', value)
    shards.append((folder / file, count))
  return shards
