"""Builders of published picture sets, on small raw files in all their layouts."""

import dataclasses
import hashlib
import importlib
import pickle

import numpy as np
from PIL import Image
import pytest

from data_prep import build as command
from data_prep.core.contents import Split
from data_prep.core.request import Request
from data_prep.datasets import BUILDERS, celebahq, cifar10, ffhq, image_folder, imagenet, mnist
from data_prep.errors import DataPrepError
from data_prep.raw import archives, pickled_arrays
from tests.support import raw_files
from tests.support.built_sets import card_of, read_split
from tests.support.raw_sets import CASES


@pytest.mark.parametrize('make', CASES.values(), ids=CASES)
def test_records_are_the_raw_pixels(make, tmp_path, monkeypatch, capsys):
  (tmp_path / 'raw').mkdir()
  expected = make(tmp_path / 'raw', monkeypatch)
  folder = command.build(expected.name, tmp_path / 'out', raw=expected.raw, unverified=True)
  card, printed = card_of(folder), capsys.readouterr().out
  assert list(card['splits']) == list(expected.images)
  for split, images in expected.images.items():
    records = read_split(folder, split)
    np.testing.assert_array_equal(records['image'], images, strict=True)
    if expected.labels:
      np.testing.assert_array_equal(records['label'], expected.labels[split], strict=True)
  assert set(card['fields']) == ({'image', 'label'} if expected.labels else {'image'})
  assert f'[ok] container: {expected.container}' in printed
  assert '[ok] variant: ' in printed
  assert card['variant'] and all(len(digest) == 64 for digest in card['files'].values())
  assert card['compression'] == ('zstd' if images.shape[1] >= 256 else 'uncompressed')


@pytest.mark.parametrize('make', CASES.values(), ids=CASES)
def test_examples_can_be_made_elsewhere_from_the_middle(make, tmp_path, monkeypatch):
  """Makes any range alone after pickling, as writing processes do."""
  expected = make(tmp_path, monkeypatch)
  module = importlib.import_module(BUILDERS[expected.name])
  request = Request(expected.name, tmp_path, raw=tuple(expected.raw), unverified=True)
  for split, spec in module.load(request).splits.items():
    examples = pickle.loads(pickle.dumps(spec.examples))
    last = spec.count - 1
    (record,) = examples(last, last + 1)
    np.testing.assert_array_equal(record['image'], expected.images[split][last])


def counted(**counts):
  return {name: Split(count, lambda start, stop: iter(())) for name, count in counts.items()}


def sha256(view):
  return hashlib.sha256(np.asarray(view.indices, '<i8').tobytes()).hexdigest()


def test_published_splits_are_reproduced():
  cifar = cifar10.make_views(counted(train=50_000, test=10_000))
  assert cifar['vdvae/valid'].indices[:5].tolist() == [38899, 48321, 12222, 16844, 47067]
  assert sha256(cifar['vdvae/valid']) == (
    'a62a2f02ab39756edc27567a7feea80a736cbcf461d6106567afc30e66b154b0'
  )
  assert sha256(cifar['vdvae/train']) == (
    '41bfb7d6515495aa7dccb33e7508d8ef7b23d9d8c44d3073385d8198657c5a66'
  )
  for views in (cifar, mnist.make_views(counted(train=60_000, test=10_000))):
    halves = [views[f'efficient_vdvae/{half}'].indices for half in ('valid', 'test')]
    assert [len(half) for half in halves] == [5000, 5000]
    shuffled = dataclasses.replace(cifar['vdvae/train'], indices=np.concatenate(halves))
    assert sha256(shuffled) == '74f0fbe8eac8c210079f6d6f0f9a86b154298a979b7ccd5fd7721cc27a6ed10d'
  assert sha256(ffhq.make_views(256)['vdvae/valid']) == (
    'c57bcfed4120b5299fa5a280ffdc8359c59d98ed0022eea821b246218a68406a'
  )
  small = imagenet.make_views(counted(train=1_281_149, valid=49_999))
  assert sha256(small['vdvae/valid']) == (
    '4c9164fe53e320be66dfc5cec6474969022b777244091dc62b6abb9684653853'
  )


@pytest.mark.parametrize('protocol', [2, 3, 4])
@pytest.mark.parametrize('dtype', ['u1', '>i8', '<f4', '?'])
def test_pickled_arrays_of_every_protocol_are_read(protocol, dtype):
  array = np.random.default_rng(0).integers(0, 99, (4, 5)).astype(dtype)
  batch = {
    'rows': array,
    b'columns': np.asfortranarray(array),
    'names': ['a', b'b'],
    'one': (1, None),
  }
  read = pickled_arrays.read(pickle.dumps(batch, protocol), 'here')
  for name in (b'rows', b'columns'):
    np.testing.assert_array_equal(read[name], array, strict=True)
  assert read[b'names'] == ['a', b'b'] and read[b'one'] == (1, None)


def test_the_split_saved_by_nvae_is_used(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(ffhq, 'COUNT', 5)
  monkeypatch.setattr(ffhq, 'HELD_OUT', 2)
  np.save(tmp_path / 'ffhq-256.npy', raw_files.pictures(5, 256))
  indices = {'train': np.array([4, 0, 2]), 'test': np.array([3, 1])}
  saved = raw_files.write_zip(
    tmp_path / 'train_test_ind.pt', {'x/data.pkl': pickle.dumps(indices, 2), 'x/version': b'3'}
  )
  folder = command.build('ffhq256', tmp_path, raw=[tmp_path / 'ffhq-256.npy', saved])
  with np.load(folder / 'views.npz') as lists:
    np.testing.assert_array_equal(lists['nvae/train'], indices['train'])
    np.testing.assert_array_equal(lists['nvae/test'], indices['test'])
  assert 'unseeded) for efficient_vdvae; using' in capsys.readouterr().out
  for bad in ({'train': indices['train']}, {**indices, 'test': np.array([3, 3])}):
    raw_files.write_zip(saved, {'x/data.pkl': pickle.dumps(bad, 2)})
    archives._zip.cache_clear()  # the file of this name has changed
    with pytest.raises(DataPrepError, match='must hold two lists of 3 and 2 indices'):
      ffhq.make_views(256, saved)
  with pytest.raises(DataPrepError, match='none of the raw files is for ffhq256'):
    command.build('ffhq256', tmp_path / 'new', raw=[saved])


def test_views_of_a_paper_share_no_record_and_leave_none_out():
  for views, split, count, names in (
    (cifar10.make_views(counted(train=50_000, test=10_000)), 'train', 50_000, ('train', 'valid')),
    (
      imagenet.make_views(counted(train=1_281_149, valid=9)),
      'train',
      1_281_149,
      ('train', 'valid'),
    ),
    (ffhq.make_views(256), 'all', 70_000, ('train', 'valid')),
    (ffhq.make_views(1024), 'all', 70_000, ('train', 'valid')),
  ):
    together = [views[f'vdvae/{name}'] for name in names]
    assert {view.split for view in together} == {split}
    np.testing.assert_array_equal(
      np.sort(np.concatenate([view.indices for view in together])), np.arange(count)
    )
  assert ffhq.make_views(1024)['vdvae/valid'].indices[0] == 65_000
  unseeded = np.random.RandomState(0).permutation(30_000)[-3000:]
  valid = celebahq.make_views()['efficient_vdvae/valid'].indices
  np.testing.assert_array_equal(valid, unseeded)


def test_image_folder_takes_pictures_of_all_kinds(tmp_path):
  """Mixes modes, sizes and formats, and compares with Pillow alone."""
  rng = np.random.default_rng(0)
  raw, expected = tmp_path / 'pictures', []
  raw.mkdir()
  for i, (mode, size, suffix) in enumerate(
    (
      ('RGB', (40, 30), 'png'),
      ('L', (31, 57), 'png'),
      ('RGBA', (64, 64), 'png'),
      ('CMYK', (50, 33), 'jpg'),
      ('1', (20, 20), 'png'),
      ('P', (35, 36), 'gif'),
      ('RGB', (16, 90), 'webp'),
      ('RGB', (24, 24), 'bmp'),
    )
  ):
    noise = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    path = raw / f'deep{i % 2}/{i}.{suffix.upper()}'
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(noise).convert(mode).save(path)
  (raw / 'notes.txt').write_text('no picture')
  for path in sorted(raw.rglob('*.*'), key=lambda path: path.relative_to(raw).as_posix()):
    if path.suffix != '.txt':
      with Image.open(path) as image:
        picture = image.convert('RGB')
      side = min(picture.size)
      left, upper = (picture.width - side) // 2, (picture.height - side) // 2
      picture = picture.crop((left, upper, left + side, upper + side))
      expected.append(np.asarray(picture.resize((24, 24), Image.Resampling.BICUBIC)))
  variant = 'size=24,kernel=bicubic,valid=0.25,test=0.125,seed=3'
  folder = command.build('image_folder', tmp_path, raw=[raw], variant=variant, called='ours')
  np.testing.assert_array_equal(read_split(folder, 'all')['image'], np.stack(expected))
  views = card_of(folder)['views']
  assert {name: view['count'] for name, view in views.items()} == {
    'all': 8,
    'train': 5,
    'valid': 2,
    'test': 1,
  }
  with np.load(folder / 'views.npz') as lists:
    dealt = np.concatenate([lists[name] for name in ('valid', 'test', 'train')])
  np.testing.assert_array_equal(dealt, np.random.RandomState(3).permutation(8))
  grey = command.build('image_folder', tmp_path, raw=[raw], variant='channels=1,size=8')
  assert read_split(grey, 'all')['image'].shape == (8, 8, 8, 1)
  assert image_folder.parse_options(None)['size'] == 64


def test_box_filtered_batches_do_not_depend_on_how_they_are_packed(tmp_path, monkeypatch):
  loose = tmp_path / 'loose'
  loose.mkdir()
  CASES['imagenet32_box_loose'](loose, monkeypatch)
  zips = [
    raw_files.write_zip(
      tmp_path / f'{part}.zip', {path.name: path.read_bytes() for path in loose.glob(f'{part}*')}
    )
    for part in ('train', 'val')
  ]
  folders = [
    command.build('imagenet32_box', tmp_path, raw=raw, called=called)
    for called, raw in (('one', [loose]), ('other', zips))
  ]
  assert len({card_of(folder)['pixel_sha256'] for folder in folders}) == 1
