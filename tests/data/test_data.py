"""Batches: order, shares, resuming, padding, transforms, and messages about broken folders."""

import itertools
import json
import shutil

from absl import flags
import numpy as np
import pytest

from data_prep.core import contents, records
from hvae_tpu import data
from hvae_tpu.data import transforms
from hvae_tpu.errors import UserError

COUNT = 103
SOME = np.random.RandomState(7).permutation(COUNT)[:50]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A folder with the data set `tiny`: 103 examples in 3 shards, each carrying its index."""
  index = np.arange(COUNT, dtype=np.int32)
  image = np.random.RandomState(0).randint(0, 256, (COUNT, 6, 4, 3)).astype(np.uint8)
  tiny = contents.Contents(
    fields={
      'image': contents.Field('uint8', (6, 4, 3)),
      'index': contents.Field('int32', ()),
      'factors': contents.Field('float32', (2, 2)),
    },
    splits={
      'all': contents.split_of_arrays(
        image=image, index=index, factors=np.tile(index[:, None, None] / 8, (1, 2, 2)).astype('f4')
      )
    },
    views={
      'all': contents.View('all', 'all examples'),
      'paper/train': contents.View('all', 'RandomState(7).permutation(103)[:50]', SOME, seed=7),
      'none': contents.View('all', 'nothing', SOME[:0]),
    },
    info=contents.CardInfo(1, 'made here', {}, {}, 'none', 'none', True),
    records_per_shard=40,
  )
  root = tmp_path_factory.mktemp('data')
  records.write_dataset(root / 'tiny', 'tiny', tiny)
  return root


@pytest.fixture
def tiny(root):
  return data.open_dataset('tiny', root)


def train(dataset, num, view='paper/train', batch_size=12, seed=0, **options):
  """The first `num` batches of a pipeline, which is closed afterwards."""
  batches = data.train_batches(dataset, view, batch_size=batch_size, seed=seed, **options)
  taken = list(itertools.islice(batches, num))
  batches.close()
  return taken


def assert_same(left, right):
  assert len(left) == len(right)
  for one, other in zip(left, right, strict=True):
    assert one.keys() == other.keys()
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])


def joined(shares):
  """Global batches of the processes' lists of batches, rows in process order."""
  return [
    {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for parts in zip(*shares, strict=True)
  ]


def test_batches_hold_every_field_as_written(tiny):
  (batch,) = train(tiny, 1, view='all', batch_size=20)
  assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
    'image': ((20, 6, 4, 3), 'uint8'),
    'index': ((20,), 'int32'),
    'factors': ((20, 2, 2), 'float32'),
  }
  np.testing.assert_array_equal(batch['factors'][:, 1, 0], batch['index'] / 8)


def test_each_example_comes_once_an_epoch_in_a_new_order(tiny):
  order = np.concatenate([batch['index'] for batch in train(tiny, 13, batch_size=12)])
  first, second = order[:50], order[50:100]  # the border lies within the fifth batch
  assert sorted(first) == sorted(second) == sorted(SOME)
  assert list(first) != list(second)
  assert list(first) != list(SOME)


def test_order_depends_on_the_seed(tiny):
  first, again, other = (train(tiny, 2, seed=seed)[1]['index'] for seed in (3, 3, 4))
  np.testing.assert_array_equal(first, again)
  assert list(first) != list(other)


@pytest.mark.parametrize('start', [0, 3, 1000])
@pytest.mark.parametrize('processes', [2, 3, 4])
def test_shares_of_processes_are_the_global_batch_row_for_row(tiny, processes, start):
  options = {'transforms': ('flip', 'binarize'), 'start_step': start}
  shares = [
    train(tiny, 3, process_index=index, process_count=processes, **options)
    for index in range(processes)
  ]
  assert_same(joined(shares), train(tiny, 3, **options))


@pytest.mark.parametrize('start', [1, 4, 9])
def test_starting_at_a_step_gives_the_batch_of_that_step(tiny, start):
  uninterrupted = train(tiny, 12, transforms=('flip', 'binarize'))
  resumed = train(tiny, 12 - start, transforms=('flip', 'binarize'), start_step=start)
  assert_same(resumed, uninterrupted[start:])


def test_worker_processes_change_nothing(tiny):
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain's worker processes read flags
  options = {'transforms': ('flip', 'binarize'), 'start_step': 2}
  assert_same(train(tiny, 5, num_workers=2, **options), train(tiny, 5, **options))


@pytest.mark.parametrize('processes', [1, 2, 4])
@pytest.mark.parametrize('batch_size', [4, 8, 52])
def test_evaluation_goes_once_through_the_view_in_its_order(tiny, batch_size, processes):
  shares = [
    list(
      data.eval_batches(
        tiny,
        'paper/train',
        batch_size=batch_size,
        process_index=index,
        process_count=processes,
      )
    )
    for index in range(processes)
  ]
  batches = joined(shares)
  assert len(batches) == -(-50 // batch_size)
  assert all(batch['mask'].shape == (batch_size,) for batch in batches)
  assert all(batch['mask'].dtype == bool for batch in batches)
  mask = np.concatenate([batch['mask'] for batch in batches])
  index = np.concatenate([batch['index'] for batch in batches])
  np.testing.assert_array_equal(index[mask], SOME)
  assert mask[:50].all()
  assert not mask[50:].any()
  assert (index[50:] == SOME[-1]).all()


@pytest.mark.parametrize('transforms', [(), ('flip',)])
def test_records_in_memory_change_nothing(tiny, transforms):
  options = {'start_step': 3, 'transforms': transforms}
  assert_same(train(tiny, 6, cache_bytes=2**20, **options), train(tiny, 6, **options))
  assert_same(train(tiny, 6, cache_bytes=2**10, **options), train(tiny, 6, **options))  # too small


def test_only_the_wanted_fields_are_read(tiny):
  (some,), (all_,) = train(tiny, 1, fields=('index', 'image')), train(tiny, 1)
  assert set(some) == {'index', 'image'}
  np.testing.assert_array_equal(some['image'], all_['image'])


def test_indices_of_a_batch_are_those_that_are_read(tiny):
  batch = train(tiny, 1, start_step=4)[0]
  indices = data.train_indices(tiny, 'paper/train', batch_size=12, seed=0, step=4)
  np.testing.assert_array_equal(batch['index'], indices)


def test_crops_cut_the_same_square_out_of_every_picture():
  row, column = np.mgrid[:6, :9].astype(np.uint8)
  image = np.stack([row, column], -1)
  example = {'image': image, 'segmentation': image[np.newaxis], 'label': np.array(3)}
  corners = set()
  for seed in range(200):
    cut = transforms.crop(example, np.random.default_rng(seed), 4)
    assert cut['image'].shape == (4, 4, 2)
    np.testing.assert_array_equal(cut['segmentation'][0], cut['image'])
    top, left = cut['image'][0, 0]
    np.testing.assert_array_equal(cut['image'], image[top : top + 4, left : left + 4])
    corners.add((int(top), int(left)))
  assert corners == {(top, left) for top in range(3) for left in range(6)}
  centre = transforms.centre_crop(example, np.random.default_rng(0), 4)['image']
  np.testing.assert_array_equal(centre[0, 0], (1, 2))


def test_shapes_of_a_batch_are_known_without_reading(tiny):
  options = {'transforms': ('flip', 'crop:3')}
  spec = data.batch_spec(tiny.card, ('image', 'factors'), 12, **options)
  (batch,) = train(tiny, 1, fields=('image', 'factors'), **options)
  assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
    name: (array.shape, array.dtype) for name, array in spec.items()
  }


def test_look_alikes_are_refused(tiny):
  view = tiny.view('paper/train')
  data.check_required(tiny, 'paper/train', '', view['sha256'])
  with pytest.raises(UserError, match=r"require\.variant='van_den_oord', but .* holds the variant"):
    data.check_required(tiny, 'paper/train', 'van_den_oord', '')
  with pytest.raises(UserError, match='its examples are not those of the paper; build the right'):
    data.check_required(tiny, 'all', '', view['sha256'])


def test_flip_mirrors_pictures_whole_and_half_of_the_time():
  scene = np.arange(2 * 3 * 4 * 1, dtype=np.uint8).reshape(2, 3, 4, 1)
  example = {'image': scene[0], 'segmentation': scene, 'factors': np.arange(3)}
  mirrored = 0
  for seed in range(400):
    flipped = transforms.flip(example, np.random.default_rng(seed))
    now = flipped['image'][0, 0, 0] != example['image'][0, 0, 0]
    mirrored += now
    for name in ('image', 'segmentation'):
      expected = example[name][..., ::-1, :] if now else example[name]
      np.testing.assert_array_equal(flipped[name], expected)
    np.testing.assert_array_equal(flipped['factors'], example['factors'])
  assert abs(mirrored - 200) < 50  # five standard deviations


def test_binarize_draws_white_with_the_probability_of_the_grey_level():
  grey = np.array([0, 1, 64, 128, 254, 255], np.uint8)
  image = np.broadcast_to(grey, (20000, 6))[..., None]
  binary = transforms.binarize({'image': image}, np.random.default_rng(0))['image']
  assert binary.dtype == np.uint8
  assert set(np.unique(binary)) == {0, 255}
  share = (binary[..., 0] == 255).mean(0)
  deviation = np.sqrt(grey / 255 * (1 - grey / 255) / len(image))
  assert (np.abs(share - grey / 255) <= 5 * deviation).all()  # 0 and 255 exactly


def test_binarize_is_fresh_in_training_and_fixed_in_evaluation(tiny):
  def by_index(batches):
    return {
      int(index): image
      for batch in batches
      for index, image in zip(batch['index'], batch['image'], strict=True)
    }

  options = {'batch_size': 10, 'transforms': ('binarize',)}
  epochs = train(tiny, 10, **options)
  first, second = by_index(epochs[:5]), by_index(epochs[5:])
  assert all((first[index] != second[index]).any() for index in SOME)

  one = by_index(data.eval_batches(tiny, 'paper/train', **options))
  # Another view, another place in the batch: the draws belong to the example.
  other = by_index(data.eval_batches(tiny, 'all', batch_size=7, transforms=('binarize',)))
  assert all((one[index] == other[index]).all() for index in SOME)
  seeded = by_index(data.eval_batches(tiny, 'paper/train', seed=1, **options))
  assert all((one[index] != seeded[index]).any() for index in SOME)


def test_default_root_is_the_environment_variable(root, monkeypatch):
  monkeypatch.setenv('HVAE_DATA', str(root))
  assert data.open_dataset('tiny').size('paper/train') == 50


def test_missing_data_set_names_the_command(tmp_path):
  with pytest.raises(UserError, match=r'python -m data_prep\.build nothing --out='):
    data.open_dataset('nothing', tmp_path)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'view': 'valid'}, "no view 'valid'; choose one of: all, paper/train, none"),
    ({'batch_size': 51}, "data.train_split='paper/train' of tiny has 50 examples, fewer than"),
    (
      {'transforms': ('spin',)},
      "no transform 'spin'; choose from: flip, binarize",
    ),
    ({'process_count': 5}, 'train.batch_size=12 must be a positive multiple of the 5'),
    ({'transforms': ('crop',)}, "the transform 'crop' must be written 'crop:N'"),
    ({'transforms': ('flip:2',)}, "the transform 'flip:2' must be written 'flip'"),
    ({'transforms': ('crop:5',)}, 'crop:5 does not fit into 6x4 px'),
    ({'seed': -1}, 'seed=-1 must lie between'),
  ],
)
def test_wrong_arguments_are_told(tiny, options, message):
  with pytest.raises(UserError, match=message):
    train(tiny, 1, **options)


def test_empty_view_is_told(tiny):
  with pytest.raises(UserError, match="view 'none' of tiny is empty"):
    data.eval_batches(tiny, 'none', batch_size=2)


@pytest.fixture
def copy(root, tmp_path):
  shutil.copytree(root / 'tiny', tmp_path / 'tiny')
  return tmp_path / 'tiny'


SHARD = 'tiny-all.array_record-00001-of-00003'


def test_missing_and_shortened_shards_are_named(copy):
  whole = (copy / SHARD).read_bytes()
  (copy / SHARD).write_bytes(whole[:-10])
  with pytest.raises(UserError, match=f'{SHARD} must have .* bytes'):
    data.open_dataset('tiny', copy.parent)
  (copy / SHARD).unlink()
  with pytest.raises(UserError, match=f'{SHARD} is missing; delete .*tiny and run'):
    data.open_dataset('tiny', copy.parent)


def test_damaged_record_is_named_with_shard_and_place(copy):
  damaged = bytearray((copy / SHARD).read_bytes())
  image = np.random.RandomState(0).randint(0, 256, (COUNT, 6, 4, 3)).astype(np.uint8)[45]
  damaged[damaged.index(image.tobytes())] ^= 255
  (copy / SHARD).write_bytes(damaged)
  batches = data.eval_batches(data.open_dataset('tiny', copy.parent), 'all', batch_size=5)
  assert sum(len(next(batches)['index']) for _ in range(9)) == 45
  with pytest.raises(UserError, match=f'{SHARD} is damaged: record 5 cannot be read'):
    next(batches)


def test_changed_index_list_is_refused(copy):
  np.savez(copy / 'views.npz', **{'paper/train': SOME[::-1]})
  tiny = data.open_dataset('tiny', copy.parent)
  with pytest.raises(UserError, match="views.npz differs from the data card in view 'paper/train'"):
    tiny.indices('paper/train')
  (copy / 'views.npz').write_bytes(b'PK')
  with pytest.raises(UserError, match="no readable index list of view 'paper/train'"):
    tiny.indices('paper/train')


def test_other_format_and_broken_card_are_refused(copy):
  card = json.loads((copy / 'dataset.json').read_text())
  (copy / 'dataset.json').write_text(json.dumps({**card, 'format': 99}))
  with pytest.raises(UserError, match='is of format 99, but this version reads format 1'):
    data.open_dataset('tiny', copy.parent)
  (copy / 'dataset.json').write_text('{')
  with pytest.raises(UserError, match=r'dataset\.json cannot be read .*; run: python'):
    data.open_dataset('tiny', copy.parent)


def test_a_demo_set_stands_in_for_the_views_of_a_paper(root, tmp_path):
  shutil.copytree(root / 'tiny', tmp_path / 'demo_tiny')
  card = json.loads((tmp_path / 'demo_tiny' / 'dataset.json').read_text())
  card['views']['train'] = card['views']['all']
  (tmp_path / 'demo_tiny' / 'dataset.json').write_text(json.dumps({**card, 'name': 'demo_tiny'}))
  demo = data.open_dataset('demo_tiny', tmp_path)
  assert demo.size('vdvae/train') == COUNT and len(demo.indices('vdvae/train')) == COUNT
  with pytest.raises(UserError, match="demo_tiny has no view 'valid'"):
    demo.size('vdvae/valid')


def test_a_field_that_the_records_lack_is_told(tiny):
  message = "names 'video', but the records of tiny have only: image, index, factors"
  with pytest.raises(UserError, match=message):
    data.batch_spec(tiny.card, ('video',), 2)
  with pytest.raises(UserError, match=message):
    train(tiny, 1, fields=('image', 'video'))
