"""Latent variables on disk: what is written is read, in both forms, or nothing is there."""

import json

import numpy as np
import pytest

from hvae_tpu import latents
from hvae_tpu.distributions import Group
from hvae_tpu.errors import UserError

ABOUT = {'dataset': 'pictures'}
INDEX = np.array([5, 3, 9, 0, 7])
KEPT = np.array([[True, False, True], [False, False, False], [True, True, True]])


def groups(count: int = 5) -> tuple[Group, ...]:
  """Three groups of three variates on 1, 4 and 16 positions."""
  rng = np.random.default_rng(0)
  draw = lambda side: rng.standard_normal((count, side, side, 3)).astype(np.float32)
  return tuple(Group(draw(side), draw(side), draw(side)) for side in (1, 2, 4))


def write(folder, variates=None, parts=latents.PARTS, formats=latents.FORMATS, shard_bytes=1):
  """Five examples in batches of two, each a shard of its own unless there is room."""
  found = groups()
  with latents.Writer(folder, ABOUT, variates, parts, formats, shard_bytes) as writer:
    for start in (0, 2, 4):
      rows = slice(start, start + 2)
      writer.add(INDEX[rows], tuple(Group(*(a[rows] for a in group)) for group in found))
  return found


@pytest.mark.parametrize('formats', [('npz',), ('array_record',)])
@pytest.mark.parametrize('shard_bytes', [1, 2**20])
@pytest.mark.parametrize('variates', [None, KEPT])
def test_what_is_written_is_read(tmp_path, formats, shard_bytes, variates):
  written = write(tmp_path / 'x', variates, formats=formats, shard_bytes=shard_bytes)
  stored = latents.open_latents(tmp_path / 'x')
  assert len(stored) == 5 and len(stored.card['shards']) == (3 if shard_bytes == 1 else 1)
  kept = np.ones_like(KEPT) if variates is None else variates
  np.testing.assert_array_equal(stored.variates, kept)
  index, read = stored.read([4, 0, 3])
  np.testing.assert_array_equal(index, INDEX[[4, 0, 3]])
  for mine, theirs, row in zip(read, written, kept, strict=True):
    for part, expected in zip(mine, theirs, strict=True):
      np.testing.assert_array_equal(part, np.where(row, expected[[4, 0, 3]], 0))
  last = stored[-1]
  assert last.index == 7 and last.dataset == 'pictures' and len(list(stored)) == 5
  np.testing.assert_array_equal(last.latents[2].z, written[2].z[4])
  with pytest.raises(IndexError):
    stored[5]


def test_without_moments(tmp_path):
  written = write(tmp_path / 'x', parts=('z',))
  assert {path.suffix for path in (tmp_path / 'x').iterdir()} == {'.npz', '.array_record', '.json'}
  found = latents.open_latents(tmp_path / 'x')[1].latents[1]
  assert found.mean is None and found.scale is None
  np.testing.assert_array_equal(found.z, written[1].z[1])


def test_npz_shards_need_no_reader(tmp_path):
  written = write(tmp_path / 'x', KEPT)
  with np.load(tmp_path / 'x' / 'latents-00001.npz') as arrays:
    assert str(arrays['dataset']) == 'pictures'
    np.testing.assert_array_equal(arrays['index'], INDEX[2:4])
    np.testing.assert_array_equal(arrays['000/z'], written[0].z[2:4, ..., [0, 2]])
    assert not any(name.startswith('001') for name in arrays.files)


def test_a_failure_leaves_what_was_there(tmp_path):
  write(tmp_path / 'x')
  with pytest.raises(ZeroDivisionError):
    with latents.Writer(tmp_path / 'x', ABOUT, None, ('z',), ('npz',), 1) as writer:
      writer.add(INDEX, groups())
      1 / 0  # noqa: B018
  assert [path.name for path in tmp_path.iterdir()] == ['x']
  assert latents.open_latents(tmp_path / 'x').card['parts'] == list(latents.PARTS)
  write(tmp_path / 'x', parts=('z',))
  assert [path.name for path in tmp_path.iterdir()] == ['x']
  assert latents.open_latents(tmp_path / 'x').card['parts'] == ['z']


def test_refused(tmp_path):
  with pytest.raises(UserError, match='has no readable latents.json.*--mode=encode wrote'):
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
  card = json.loads((tmp_path / 'x' / 'latents.json').read_text())
  (tmp_path / 'x' / 'latents.json').write_text(json.dumps(card | {'format': 2}))
  with pytest.raises(UserError, match='is of format 2, but this version reads format 1'):
    latents.open_latents(tmp_path / 'x')
