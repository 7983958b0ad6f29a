"""Latent variables on disk: both formats are read back; interrupted writes leave nothing."""

import json
import re
import subprocess
import sys

from array_record.python import array_record_module
import numpy as np
import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.nn.distributions import Group
from hvae_tpu.runs import latents

ABOUT = {'origin': {}, 'batch_size': 2, 'seed': 0}
SOURCE = 'pictures/train'
INDEX = np.array([5, 3, 9, 0, 7])
VARIATES = np.array([[True, False, True], [False, False, False], [True, True, True]])


def groups(count: int = 5) -> tuple[Group, ...]:
  """Three groups of three variates on 1, 4 and 16 positions."""
  rng = np.random.default_rng(0)
  draw = lambda side: rng.standard_normal((count, side, side, 3)).astype(np.float32)
  return tuple(Group(draw(side), draw(side), draw(side)) for side in (1, 2, 4))


def write(folder, variates=None, parts=latents.PARTS, formats=latents.FORMATS, shard_bytes=1):
  """Five examples in batches of two, each a shard of its own unless there is room."""
  written = groups()
  with latents.Writer(folder, SOURCE, ABOUT, variates, parts, formats, shard_bytes) as writer:
    for start in (0, 2, 4):
      rows = slice(start, start + 2)
      writer.add(INDEX[rows], tuple(Group(*(a[rows] for a in group)) for group in written))
  return written


@pytest.mark.parametrize('formats', [('npz',), ('array_record',)])
@pytest.mark.parametrize('shard_bytes', [1, 2**20])
@pytest.mark.parametrize('variates', [None, VARIATES])
def test_what_is_written_is_read(tmp_path, formats, shard_bytes, variates):
  written = write(tmp_path / 'x', variates, formats=formats, shard_bytes=shard_bytes)
  stored = latents.open_latents(tmp_path / 'x')
  assert len(stored) == 5 and len(stored.card['shards']) == (3 if shard_bytes == 1 else 1)
  expected_variates = np.ones_like(VARIATES) if variates is None else variates
  np.testing.assert_array_equal(stored.variates, expected_variates)
  index, source, read = stored.read([4, 0, 3])
  np.testing.assert_array_equal(index, INDEX[[4, 0, 3]])
  assert source.tolist() == [SOURCE] * 3
  for group, expected_group, row in zip(read, written, expected_variates, strict=True):
    for part, expected in zip(group, expected_group, strict=True):
      np.testing.assert_array_equal(part, np.where(row, expected[[4, 0, 3]], 0))
  last = stored[-1]
  assert last.index == 7 and last.source == SOURCE and len(list(stored)) == 5
  np.testing.assert_array_equal(last.latents[2].z, written[2].z[4])
  with pytest.raises(IndexError):
    stored[5]


def test_without_moments(tmp_path):
  written = write(tmp_path / 'x', parts=('z',))
  assert {path.suffix for path in (tmp_path / 'x').iterdir()} == {'.npz', '.array_record', '.json'}
  group = latents.open_latents(tmp_path / 'x')[1].latents[1]
  assert group.mean is None and group.scale is None
  np.testing.assert_array_equal(group.z, written[1].z[1])


def test_npz_shards_need_no_reader(tmp_path):
  written = write(tmp_path / 'x', VARIATES)
  with np.load(tmp_path / 'x' / 'latents-00001.npz') as arrays:
    assert arrays['source'].tolist() == [SOURCE] * 2
    np.testing.assert_array_equal(arrays['index'], INDEX[2:4])
    np.testing.assert_array_equal(arrays['000/z'], written[0].z[2:4, ..., [0, 2]])
    assert not any(name.startswith('001') for name in arrays.files)


def test_array_records_name_their_example(tmp_path):
  """Read by the layout that the head of the module gives, without our reader."""
  written = write(tmp_path / 'x', VARIATES, parts=('z',), formats=('array_record',))
  path = tmp_path / 'x' / 'latents-00001.array_record'
  record = array_record_module.ArrayRecordReader(str(path)).read([1])[0]
  assert np.frombuffer(record, '<i8', 2).tolist() == [INDEX[3], len(SOURCE)]
  assert record[16:30].decode() == SOURCE
  values = np.frombuffer(record, '<f4', offset=30)
  np.testing.assert_array_equal(values[:2], written[0].z[3, 0, 0, [0, 2]])
  np.testing.assert_array_equal(values[2:].reshape(4, 4, 3), written[2].z[3])


FULL = """
import pathlib, resource, sys
from hvae_tpu import errors
from tests.runs import test_latents
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
try:
  test_latents.write(pathlib.Path(sys.argv[1]), formats=(sys.argv[2],), shard_bytes=2**20)
except errors.UserError as error:
  print(error)
"""


@pytest.mark.parametrize('form', latents.FORMATS)
def test_a_full_disk_at_the_end_is_told(tmp_path, form):
  """Files of more than 300 bytes are refused; all of it is written when the last example is in."""
  command = [sys.executable, '-c', FULL, str(tmp_path / 'x'), form]
  process = subprocess.run(command, capture_output=True, text=True, timeout=120)
  assert f'{tmp_path / "x"} cannot be written (' in process.stdout, process.stderr
  assert 'File too large' in process.stdout and not list(tmp_path.iterdir())


def test_a_failure_leaves_what_was_there(tmp_path):
  write(tmp_path / 'x')
  with pytest.raises(ZeroDivisionError):
    with latents.Writer(tmp_path / 'x', SOURCE, ABOUT, None, ('z',), ('npz',), 1) as writer:
      writer.add(INDEX, groups())
      1 / 0  # noqa: B018
  assert [path.name for path in tmp_path.iterdir()] == ['x']
  assert latents.open_latents(tmp_path / 'x').card['parts'] == list(latents.PARTS)
  write(tmp_path / 'x', parts=('z',))
  assert [path.name for path in tmp_path.iterdir()] == ['x']
  assert latents.open_latents(tmp_path / 'x').card['parts'] == ['z']


def test_refused(tmp_path):
  with pytest.raises(UserError, match='latents.json is missing; give a folder that'):
    latents.open_latents(tmp_path)
  with pytest.raises(
    UserError, match=r"config.encode.formats=\('csv',\) must be some of array_rec"
  ):
    write(tmp_path / 'x', formats=('csv',))
  write(tmp_path / 'x', formats=('array_record',))
  (tmp_path / 'x' / 'latents-00001.array_record').unlink()
  stored = latents.open_latents(tmp_path / 'x')
  assert stored[0].index == 5
  with pytest.raises(UserError, match=r'latents-00001.array_record cannot be read \(no such file'):
    stored[2]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'format': 3}, 'is of format 3, but this version reads format 2'),
    ({'shards': None}, 'latents.json is damaged: shards missing, or not as written'),
    ({'shards': []}, 'is damaged: shards missing'),
    ({'parts': ['mean']}, 'is damaged: parts missing'),
    ({'formats': [['npz']]}, 'is damaged: formats missing'),
    ({'sides': 5}, 'is damaged: sides, variates missing'),
    ({'variates': [[0, 1, 2]]}, 'is damaged: variates missing'),
    ({'num_variates': 2}, 'is damaged: variates missing'),
    ({'batch_size': 0, 'origin': 'x'}, 'is damaged: origin, batch_size missing'),
  ],
  ids=str,
)
def test_damaged_cards_are_refused(tmp_path, change, message):
  write(tmp_path / 'x')
  card = tmp_path / 'x' / 'latents.json'
  entries = {**json.loads(card.read_text()), **change}
  card.write_text(json.dumps({k: v for k, v in entries.items() if v is not None}))
  with pytest.raises(UserError, match=re.escape(message)):
    latents.open_latents(tmp_path / 'x')


@pytest.mark.parametrize('text', ['[]', '5', '{"format"', ''])
def test_cards_that_are_none_are_refused(tmp_path, text):
  (tmp_path / 'latents.json').write_text(text)
  with pytest.raises(UserError, match='latents.json cannot be read .*; give a folder that'):
    latents.open_latents(tmp_path)
