"""`data_prep.check` on sound and damaged data sets, and a run of `data_prep.bench`."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest

from data_prep import bench, check
from data_prep import build as command
from data_prep.core import contents, records
from tests.support import raw_files


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
  """A set with two splits, two shards in one of them, and views of both kinds."""
  root = tmp_path_factory.mktemp('sound')
  image = raw_files.pictures(25, 4)
  records.write_dataset(
    root / 'set',
    'set',
    contents.Contents(
      fields={'image': contents.Field('uint8', (4, 4, 3))},
      splits={
        'train': contents.split_of_arrays(image=image[:15]),
        'test': contents.split_of_arrays(image=image[15:]),
      },
      views={
        'train': contents.View('train', 'all'),
        'paper/train': contents.View('train', 'rule', np.arange(10)),
        'paper/valid': contents.View('train', 'rule', np.arange(10, 15)),
        'paper/test': contents.View('test', 'all'),
      },
      info=contents.CardInfo(1, 'made here', {}, {}, 'none', 'none', True),
      records_per_shard=10,
    ),
  )
  return root


@pytest.fixture
def copy(sound, tmp_path):
  return shutil.copytree(sound / 'set', tmp_path / 'set')


def change_card(folder, change):
  path = folder / 'dataset.json'
  card = json.loads(path.read_text())
  change(card)
  path.write_text(json.dumps(card))


def change_views(folder, declare=True, **changes):
  """Changes index lists and, if `declare`, the card accordingly."""
  with np.load(folder / 'views.npz') as stored:
    lists = dict(stored) | {name.replace('_', '/'): np.array(v) for name, v in changes.items()}
  np.savez(folder / 'views.npz', **lists)
  if declare:
    for name in changes:
      key = name.replace('_', '/')
      facts = {
        'count': len(lists[key]),
        'sha256': hashlib.sha256(lists[key].astype('<i8').tobytes()).hexdigest(),
      }
      change_card(folder, lambda card, key=key, facts=facts: card['views'][key].update(facts))


def shard(folder, number=0):
  return sorted(folder.glob('set-train*'))[number]


def change_bytes(path, change):
  path.write_bytes(change(path.read_bytes()))


def flip(data):
  changed = bytearray(data)
  changed[len(changed) // 2] ^= 1
  return bytes(changed)


def set_(card, *keys, value):
  for key in keys[:-1]:
    card = card[key]
  card[keys[-1]] = value


def test_sound_set_passes_by_name_and_by_folder(sound, capsys, monkeypatch):
  for arguments in (['set', f'--out={sound}'], [str(sound / 'set')]):
    assert check.main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith('[ok] ') and printed[0].endswith('are as the card says')
    assert '[ok] counts: train 15, test 10' in printed[1]
  monkeypatch.setenv('HVAE_DATA', str(sound))
  assert check.main(['set']) == 0


DAMAGE = {
  'missing shard': (lambda f: shard(f).unlink(), [r'00000-of-00002 is missing']),
  'two missing shards': (
    lambda f: [shard(f).unlink() for _ in range(2)],
    ['00000-of-00002 is missing', '00001-of-00002 is missing'],
  ),
  'shortened': (
    lambda f: change_bytes(shard(f), lambda data: data[:-7]),
    [r'00000-of-00002 has \d+ bytes, the card says \d+'],
  ),
  'empty': (lambda f: change_bytes(shard(f), lambda data: b''), ['has 0 bytes, the card says']),
  'flipped byte': (
    lambda f: change_bytes(shard(f, 1), flip),
    ['00001-of-00002 does not have the sha256 that the card names'],
  ),
  'count of a shard': (
    lambda f: change_card(f, lambda c: set_(c, 'splits', 'train', 'shards', 0, 'count', value=9)),
    ['holds 10 records, the card says 9', 'the shards hold 14 records, the card says 15'],
  ),
  'count of a split': (
    lambda f: change_card(f, lambda c: set_(c, 'splits', 'test', 'count', value=11)),
    ["split 'test': the shards hold 10 records, the card says 11", "'paper/test': its index list"],
  ),
  'size of records': (
    lambda f: change_card(f, lambda c: set_(c, 'fields', 'image', 'shape', value=[4, 5, 3])),
    ["a record of split 'train' does not have the 60 bytes"],
  ),
  'pixels': (
    lambda f: change_card(f, lambda c: set_(c, 'pixel_sha256', value='0' * 64)),
    ['pixel_sha256 is [0-9a-f]+, the card says 000'],
  ),
  'mean': (
    lambda f: change_card(f, lambda c: set_(c, 'mean', value=[0.5, 0.5, 0.5])),
    [r'mean is \[.*\], the card says \[0.5, 0.5, 0.5\]'],
  ),
  'changed list': (
    lambda f: change_views(f, declare=False, paper_valid=range(9, 14)),
    ["view 'paper/valid': its index list is not the one", "'paper/valid' share 1 records"],
  ),
  'list out of range': (
    lambda f: change_views(f, paper_valid=range(11, 16)),
    ["view 'paper/valid' points outside the 15 records of 'train'"],
  ),
  'overlap': (
    lambda f: change_views(f, paper_valid=range(8, 13)),
    ["views 'paper/train' and 'paper/valid' share 2 records"],
  ),
  'views missing': (
    lambda f: (f / 'views.npz').unlink(),
    ["view 'paper/train': its index list cannot be", "view 'paper/valid': its index list cannot"],
  ),
  'views damaged': (
    lambda f: change_bytes(f / 'views.npz', lambda data: data[:-40]),
    ["view 'paper/train': its index list cannot be", "view 'paper/valid': its index list cannot"],
  ),
}


@pytest.mark.parametrize(('damage', 'messages'), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_reported_in_one_line_each(copy, capsys, damage, messages):
  damage(copy)
  assert check.main([str(copy)]) == 1
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == len(messages), lines
  for line, message in zip(lines, messages, strict=True):
    assert re.fullmatch(rf'\[bad\] .*{message}.*', line), line


@pytest.mark.parametrize('text', [None, '{', '[]', '{"format": 1}'])
def test_folder_without_a_card_is_a_wrong_argument(copy, capsys, text):
  (copy / 'dataset.json').unlink()
  if text is not None:
    (copy / 'dataset.json').write_text(text)
  assert check.main([str(copy)]) == 2
  error = capsys.readouterr().err
  assert 'dataset.json' in error and error.count('\n') == 1


def test_bench_prints_a_line_for_each_way(tmp_path, capsys):
  (tmp_path / 'raw').mkdir()
  for i, image in enumerate(raw_files.pictures(12, 8)):
    (tmp_path / f'raw/{i:02d}.png').write_bytes(raw_files.encoded(image))
  command.build('image_folder', tmp_path, raw=[tmp_path / 'raw'], variant='size=8')
  capsys.readouterr()
  arguments = ['image_folder', f'--out={tmp_path}', '--batch=4', '--epochs=1', '--view=all']
  assert bench.main(arguments) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == 'image_folder all: 12 examples of 192 bytes; 3 batches'
  kinds = {'NumPy loop in memory', 'raw reads', 'pipeline, 0 workers'}
  assert kinds <= {line[:22].strip() for line in lines[1:]}
  assert all(re.search(r'[\d,]+ examples/s +[\d.,]+ MB/s', line) for line in lines[1:])
  assert bench.main([*arguments, '--batch=13']) == 2
  assert '--batch=13 is larger than the view' in capsys.readouterr().err
