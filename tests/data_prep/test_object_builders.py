"""Builders of multi-object sets: every container and variant, entity by entity."""

import dataclasses
import gzip

import numpy as np
from PIL import Image
import pytest

from data_prep import build as command
from data_prep import check
from data_prep.core import factors
from data_prep.core.records import write_dataset
from data_prep.core.request import Request
from data_prep.datasets import clevrtex, multi_object
from hvae_tpu import data
from tests.support import golden_files, raw_files, raw_scenes
from tests.support.built_sets import card_of, files_of, read_split

POOLS = {'train': (0, 4), 'test': (4, 6)}
IMAGES = {'tetrominoes': (35, 35, 3), 'multi_dsprites': (64, 64, 3), 'clevr': (240, 320, 3)}
VARIANTS = {  # (set, variant) -> family, entities, channels
  ('tetrominoes', None): ('tetrominoes', 4, 3),
  ('multi_dsprites', None): ('multi_dsprites', 6, 3),
  ('multi_dsprites', 'colored_on_grayscale'): ('multi_dsprites', 6, 3),
  ('multi_dsprites', 'colored_on_colored'): ('multi_dsprites', 5, 3),
  ('multi_dsprites', 'binarized'): ('multi_dsprites', 4, 1),
  ('clevr10', None): ('clevr', 11, 3),
}
ENTITIES = {'tetrominoes': 4, 'multi_dsprites': 6, 'clevr6': 7, 'clevr10': 11}
SIZES = {'clevr6': 96, 'clevr10': 128}


@pytest.fixture
def small(monkeypatch):
  """Shrinks the pools to a few scenes."""
  for name, known in multi_object.SETS.items():
    monkeypatch.setitem(multi_object.SETS, name, dataclasses.replace(known, pools=POOLS))


def scenes_of(family, entities, channels=3, count=6):
  """Makes scenes; in some the second entity, or the background and the last, are hidden."""
  hidden = [(), (1,), (0, entities - 1)]
  image = (*IMAGES[family][:2], channels)
  return [raw_scenes.scene(family, image, entities, hidden[i % 3], seed=i) for i in range(count)]


def cut_out(image, box, size, kernel):
  """Crops and resizes with Pillow alone."""
  return np.asarray(Image.fromarray(image).crop(box).resize((size, size), kernel))


def expected(name, scene):
  """Makes the record of a scene independently of the builder."""
  entities = ENTITIES[name]
  visible = [n for n, mask in enumerate(scene['masks']) if n == 0 or (mask == 255).any()]
  segmentation = np.full(scene['image'].shape[:2], 99, np.uint8)
  for new, old in enumerate(visible):
    segmentation[scene['masks'][old, ..., 0] == 255] = new
  image = scene['image']
  if image.shape[-1] == 1:
    image = np.concatenate([image] * 3, -1)
  if name in SIZES:
    box, size = (64, 29, 256, 221), SIZES[name]
    image = cut_out(image, box, size, Image.Resampling.BICUBIC)
    near = (np.arange(size) * 2 + 1) * 192 // (2 * size)  # nearest pixel
    segmentation = segmentation[29:221, 64:256][near][:, near]
  record = {'image': image, 'segmentation': segmentation[..., None]}
  family = multi_object.SETS[name].family
  for factor in raw_scenes.FACTORS[family]:
    values = np.zeros((entities, 3 if family != 'clevr' and factor == 'color' else 1), np.float32)
    if factor == 'pixel_coords':
      values = np.zeros((entities, 3), np.float32)
    for new, old in enumerate(visible):
      values[new] = scene[factor][old]
    record[f'factor_{factor}'] = values[:, 0] if values.shape[1] == 1 else values
  return record


def assert_same_scenes(folder, name, scenes_of_split):
  """Asserts that the records of each split hold its scenes, also for the reader."""
  for split, scenes in scenes_of_split.items():
    records = [expected(name, scene) for scene in scenes]
    actual = read_split(folder, split)
    assert set(actual) == set(records[0])
    for field in actual:
      together = np.stack([record[field] for record in records])
      np.testing.assert_array_equal(actual[field], together, strict=True, err_msg=field)
    dataset = data.open_dataset(folder.name, folder.parent)
    (batch,) = data.eval_batches(dataset, split, batch_size=len(scenes))
    assert batch['mask'].all()
    for field in actual:
      np.testing.assert_array_equal(batch[field], actual[field], strict=True)
  assert not list(check.problems(folder))


def write_records(path, scenes, entity_axis=0):
  path.write_bytes(gzip.compress(raw_scenes.scene_records(scenes, entity_axis), 1))
  return path


@pytest.mark.parametrize(
  ('name', 'variant'),
  [
    pytest.param(
      *key, marks=[pytest.mark.slow] if key[0] == 'clevr10' else [], id=f'{key[0]}-{key[1]}'
    )
    for key in VARIANTS
  ],
)
def test_gzipped_records(tmp_path, small, capsys, name, variant):
  family, entities, channels = VARIANTS[name, variant]
  scenes = scenes_of(family, entities, channels)
  raw = write_records(tmp_path / 'raw', scenes, 2 if family == 'multi_dsprites' else 0)
  folder = command.build(name, tmp_path, raw=[raw], variant=variant)
  printed, card = capsys.readouterr().out, card_of(folder)
  assert '[ok] container: gzipped TFRecords' in printed
  assert '[ok] every pixel belongs to exactly one entity' in printed
  assert card['details']['entities'] == ENTITIES[name]
  usual = 'colored_on_grayscale' if name == 'multi_dsprites' else name
  assert card['variant'] == (variant or usual)
  assert_same_scenes(folder, name, {'train': scenes[:4], 'test': scenes[4:]})


def test_clevr6_takes_scenes_of_few_objects(tmp_path, small, capsys):
  hidden = [(2, 5, 9, 10), (1, 2, 3, 4), (5, 6, 7), (1, 2, 3, 4, 5, 6, 7, 8), (1,), (7, 8, 9, 10)]
  scenes = [
    raw_scenes.scene('clevr', IMAGES['clevr'], 11, few, seed=i) for i, few in enumerate(hidden)
  ]
  raw = write_records(tmp_path / 'raw', scenes)
  folder = command.build('clevr6', tmp_path, raw=[raw])
  assert 'counting the objects of 6 scenes' in capsys.readouterr().out
  few_objects = {'train': [scenes[0], scenes[1], scenes[3]], 'test': [scenes[5]]}
  assert_same_scenes(folder, 'clevr6', few_objects)
  assert read_split(folder, 'train')['factor_visibility'].sum(1).tolist() == [7, 7, 3]


@pytest.mark.parametrize(
  'name',
  [
    'tetrominoes',
    'clevr6',
    *(pytest.param(name, marks=pytest.mark.slow) for name in ('multi_dsprites', 'clevr10')),
  ],
)
def test_h5_files(tmp_path, capsys, name):
  """Training scenes of CLEVR10 are in a group `test`; its test file has no factors."""
  family = multi_object.SETS[name].family
  columns = raw_scenes.CLEVR_COLUMNS
  if family != 'clevr':
    columns = [factor.name for factor in factors.FAMILIES[family]]
  scenes = scenes_of(family, ENTITIES[name], count=5)
  train = raw_scenes.h5_scenes(scenes[:3], 'test' if name == 'clevr10' else 'train', columns)
  test = raw_scenes.h5_scenes(scenes[3:], 'test')
  files = {f'{name}_with_masks_and_factors_train.h5': train, f'{name}_with_masks_test.h5': test}
  raw = raw_files.write_folder(tmp_path / 'test', files)
  folder = command.build(name, tmp_path, raw=[raw])
  loose = command.build(name, tmp_path, raw=sorted(raw.iterdir()), called='loose', jobs=3)
  printed = capsys.readouterr().out
  assert '[ok] container: h5' in printed
  assert ('[warn] columns of the factors' in printed) == (family != 'clevr')
  assert card_of(loose)['pixel_sha256'] == card_of(folder)['pixel_sha256']
  for split, group in (('train', scenes[:3]), ('test', scenes[3:])):
    actual, records = read_split(folder, split), [expected(name, scene) for scene in group]
    for field in actual:
      together = np.stack([record[field] for record in records])
      if field.startswith('factor_') and field != 'factor_visibility':
        present = together[..., 0] if together.ndim == 3 else together
        if split == 'test' or field == 'factor_pixel_coords':  # unknown for present entities
          together = np.where(present[..., None] if together.ndim == 3 else present, np.nan, 0)
          together = np.broadcast_to(together, actual[field].shape).astype(np.float32)
      elif field == 'factor_visibility' and split == 'test':
        together = np.stack(
          [np.arange(ENTITIES[name]) <= r['segmentation'].max() for r in records]
        ).astype(np.float32)
      np.testing.assert_array_equal(actual[field], together, strict=True, err_msg=field)
  assert not list(check.problems(folder))


def test_h5_of_floats_is_rounded(tmp_path):
  scenes = scenes_of('tetrominoes', 4, count=2)
  as_floats = np.stack([scene['image'] for scene in scenes]).astype(np.float32)
  for role in ('train', 'test'):
    data_of_role = raw_scenes.h5_scenes(scenes, role, imgs=as_floats + 0.25 * (as_floats < 255))
    (tmp_path / f'{role}.h5').write_bytes(data_of_role)
  folder = command.build('tetrominoes', tmp_path, raw=[tmp_path / 'train.h5', tmp_path / 'test.h5'])
  np.testing.assert_array_equal(read_split(folder, 'train')['image'], as_floats)


def test_views_of_scenes():
  for test, valid in ((320, np.arange(320)), (15_000, np.arange(320, 15_000))):
    views = multi_object.make_views(test)
    np.testing.assert_array_equal(views['test'].indices, np.arange(320))
    np.testing.assert_array_equal(views['valid'].indices, valid)
    assert views['train'].indices is None and views['train'].split == 'train'
  assert multi_object.SETS['tetrominoes'].pools == {'train': (0, 60_000), 'test': (60_000, 60_320)}
  assert multi_object.SETS['clevr6'].pools == {'train': (0, 70_000), 'test': (70_000, 85_000)}


@pytest.mark.slow
def test_bytes_of_scenes_do_not_depend_on_jobs_or_shards(tmp_path, small, capsys):
  raw = write_records(tmp_path / 'raw', scenes_of('tetrominoes', 4))
  one = command.build('tetrominoes', tmp_path / 'one', raw=[raw])
  three = command.build('tetrominoes', tmp_path / 'three', raw=[raw], jobs=3)
  assert files_of(one) == files_of(three)
  contents = multi_object.load(Request('tetrominoes', tmp_path, raw=(raw,)))
  examples = contents.splits['train'].examples
  forth = [next(examples(i, i + 1))['image'] for i in range(4)]
  back = [next(examples(i, i + 1))['image'] for i in (3, 2, 1, 0)]  # each call restarts the stream
  np.testing.assert_array_equal(forth, back[::-1])
  cut = dataclasses.replace(contents, records_per_shard=1)
  card, _ = write_dataset(tmp_path / 'cut', 'cut', cut, jobs=2)
  assert card['pixel_sha256'] == card_of(one)['pixel_sha256']
  capsys.readouterr()
  command.build('tetrominoes', tmp_path / 'one', raw=[raw])
  assert f'{one} is complete already' in capsys.readouterr().out


@pytest.fixture
def published():
  if not golden_files.folders('efficient_morl'):
    pytest.skip('there are no golden files of efficient_morl')
  goldens = [golden for _, golden in golden_files.find('efficient_morl')]
  return next(golden for golden in goldens if golden.path.name == 'preprocess.npz')


def with_owners(family, image, owner, entities):
  """Makes a scene of a picture whose pixels belong to the entities `owner` [H, W]."""
  scene = raw_scenes.scene(family, image.shape, entities)
  masks = np.where(owner == np.arange(entities)[:, None, None], 255, 0)
  return scene | {'image': image, 'masks': masks.astype(np.uint8)[..., None]}


def test_published_tetrominoes(tmp_path, monkeypatch, published):
  """Builds ten real scenes: equal pixels, and 100 px for each of three pieces."""
  known = multi_object.SETS['tetrominoes']
  pools = {'train': (0, 8), 'test': (8, 10)}
  monkeypatch.setitem(multi_object.SETS, 'tetrominoes', dataclasses.replace(known, pools=pools))
  images, owners = (published[f'input/tetrominoes_example_{key}'] for key in ('u8', 'ids'))
  scenes = [
    with_owners('tetrominoes', image, owner, 4) for image, owner in zip(images, owners, strict=True)
  ]
  folder = command.build('tetrominoes', tmp_path, raw=[write_records(tmp_path / 'raw', scenes)])
  assert_same_scenes(folder, 'tetrominoes', {'train': scenes[:8], 'test': scenes[8:]})
  segmentation = read_split(folder, 'train')['segmentation']
  np.testing.assert_array_equal(segmentation[..., 0], owners[:8])
  assert all(np.bincount(one.ravel()).tolist() == [925, 100, 100, 100] for one in segmentation)


@pytest.mark.parametrize(('name', 'key'), [('clevr6', 'clevr-small'), ('clevr10', 'clevr-large')])
def test_clevr_pictures_are_those_of_the_reference(tmp_path, monkeypatch, published, name, key):
  known = multi_object.SETS[name]
  pools = {'train': (0, 1), 'test': (1, 2)}
  monkeypatch.setitem(multi_object.SETS, name, dataclasses.replace(known, pools=pools))
  image, owner = published['input/clevr_image_u8'], published['input/clevr_ids']
  scene = with_owners('clevr', image, owner, 11)
  scene['visibility'] = np.isin(np.arange(11), owner).astype(np.float32)[:, None]
  folder = command.build(name, tmp_path, raw=[write_records(tmp_path / 'raw', [scene, scene])])
  actual = read_split(folder, 'test')
  reference = published[f'output/{key}/image_u8_chw']
  golden_files.compare_images(actual['image'][0], reference.transpose(1, 2, 0))
  near = (np.arange(SIZES[name]) * 2 + 1) * 192 // (2 * SIZES[name])
  cropped = published['output/mask_cropped_ids'][near][:, near]
  np.testing.assert_array_equal(actual['segmentation'][0, ..., 0], cropped)


def textured(variant, count):
  """Makes files of CLEVRTEX, and their expected records."""
  rng = np.random.default_rng(count)
  files, records = {}, []
  for number in range(count):
    image = rng.integers(0, 256, (240, 320, 3), np.uint8)
    objects = [
      {
        'material': f'Poliigon_{rng.integers(5)}',
        'shape': ('cube', 'sphere', 'monkey')[rng.integers(3)],
        'size': ('large', 'small')[rng.integers(2)],
        'rotation': float(rng.integers(0, 360)),
      }
      for _ in range(number % 10 + 1)
    ]
    owner = rng.integers(0, len(objects) + 1, (10, 10), np.uint8).repeat(24, 0).repeat(32, 1)
    files |= raw_scenes.clevrtex_files(variant, number, image, owner, objects)
    box = (64, 24, 256, 216)
    records.append(
      {
        'image': cut_out(image, box, 128, Image.Resampling.BILINEAR),
        'segmentation': cut_out(owner, box, 128, Image.Resampling.NEAREST)[..., None],
        'objects': [{'material': 'Poliigon_Ground'}, *objects],
      }
    )
  return files, records


@pytest.mark.parametrize(
  ('variant', 'count', 'write'), [('full', 11, 'folder'), ('outd', 3, 'zip'), ('camo', 5, 'tar')]
)
def test_clevrtex(tmp_path, capsys, variant, count, write):
  files, records = textured(variant, count)
  raw = getattr(raw_files, f'write_{write}')(tmp_path / 'raw', files)
  folder = command.build('clevrtex', tmp_path, raw=[raw])
  actual, card = read_split(folder, 'all'), card_of(folder)
  printed = capsys.readouterr().out
  assert f'[ok] variant: {variant}' in printed
  quoted = {'full': '50,000', 'outd': '10,000', 'camo': '20,000'}[variant]
  assert f'[warn] scenes: {count}, usually quoted as {quoted}' in printed
  for field in ('image', 'segmentation'):
    np.testing.assert_array_equal(actual[field], [record[field] for record in records])
  described = card['details']['factors']
  for number, record in enumerate(records):
    objects = record['objects']
    assert actual['factor_visibility'][number].sum() == len(objects)
    for row, one in enumerate(objects):
      for name in ('material', 'shape', 'size'):
        value = int(actual[f'factor_{name}'][number, row])
        names = ['', *described[name]['categories']]
        assert names[value] == one.get(name, '')
      assert actual['factor_rotation'][number, row] == one.get('rotation', 0)
  assert card['variant'] == variant
  assert not list(check.problems(folder))


def test_clevrtex_in_parts_and_variants(tmp_path):
  """Scenes lie in several archives, beside another variant."""
  files, records = textured('vbg', 4)
  other, _ = textured('pbg', 2)
  parts = [dict([*files.items()][start::2]) for start in (0, 1)]
  raw = [
    raw_files.write_tar(tmp_path / f'part{i}', part | (other if i else {}))
    for i, part in enumerate(parts)
  ]
  one = command.build('clevrtex', tmp_path / 'one', raw=raw, variant='vbg')
  np.testing.assert_array_equal(
    read_split(one, 'all')['image'], [record['image'] for record in records]
  )
  three = command.build('clevrtex', tmp_path / 'three', raw=raw, variant='vbg', jobs=3)
  assert files_of(one) == files_of(three)


def test_views_of_clevrtex():
  views = clevrtex.make_views(50_000, 'full')
  borders = {name: (view.indices[0], view.indices[-1]) for name, view in views.items()}
  assert borders == {'test': (0, 4999), 'valid': (5000, 9999), 'train': (10_000, 49_999)}
  assert [len(view.indices) for view in clevrtex.make_views(19, 'camo').values()] == [1, 2, 16]
  assert set(clevrtex.make_views(10_000, 'outd')) == {'test'}
