"""Synthetic multi-object sets: records as declared, and pictures that match their factors."""

import hashlib
import json
import pathlib
import pickle

import numpy as np
from PIL import Image
import pytest

from data_prep.core import contents, factors, records, sources
from data_prep.core.request import About, Request
from data_prep.datasets import demo_clevr, demo_multi_dsprites, demo_tetrominoes
from data_prep.errors import DataPrepError
from data_prep.synthetic import clevr_scenes, draws, sprites
from data_prep.synthetic.solids import SHAPES

MODULES = {
  'demo_tetrominoes': demo_tetrominoes,
  'demo_multi_dsprites': demo_multi_dsprites,
  'demo_clevr6': demo_clevr,
  'demo_clevr10': demo_clevr,
  'demo_clevrtex': demo_clevr,
}
SETS = [(name, None) for name in MODULES] + [('demo_clevrtex', 'camo')]
# SHA-256 over all fields, in order, of examples 0..7 of the first split
GOLDEN = {
  ('demo_tetrominoes', None): 'd522deaf999d813f1eacf3a168ba88de9c2f435dacf30967f09e25b01434114f',
  ('demo_multi_dsprites', None): '740e53df83f670ad7c54d09f14b1ac5d03dc131634adb09358ce5fc3df79dce9',
  ('demo_clevr6', None): '3002b3dfe8203026c3d503db760a6fc563abf57d09ce93f678417c782063cd53',
  ('demo_clevr10', None): '212fb125f11555a7b82edd34fd538e6f3aade9fc3cdb6043eb7a901b556124eb',
  ('demo_clevrtex', None): 'b0773e53111caab7e7fc2d16b99a8a75a5dbda987e7f333ce0916761a93802c5',
  ('demo_clevrtex', 'camo'): '2f97fdeed66700657ad4e977ff12650e9668a17c75d8b8e268cbfde30aea92e0',
}
RULES = clevr_scenes.Rules((3, 6), (0.35, 0.7), (64, 29, 256, 221))


def load(name, variant=None):
  return MODULES[name].load(Request(name, pathlib.Path(), variant=variant))


def first_split(name, variant=None):
  return next(iter(load(name, variant).splits.values())).examples


@pytest.fixture(scope='module')
def examples():
  """(set, variant) -> its examples 0..7."""
  return {one: list(first_split(*one)(0, 8)) for one in SETS}


def factors_of(example, entity):
  """Returns name -> the factor of one entity."""
  return {
    name.removeprefix('factor_'): array[entity]
    for name, array in example.items()
    if name.startswith('factor_')
  }


# ---- records ----


@pytest.mark.parametrize('one', SETS, ids=str)
def test_golden_examples(examples, one):
  whole = hashlib.sha256()
  for example in examples[one]:
    for field in load(*one).fields:
      whole.update(example[field].tobytes())
  assert whole.hexdigest() == GOLDEN[one]


@pytest.mark.parametrize('one', SETS, ids=str)
def test_example_made_alone_equals_the_one_in_a_range(examples, one):
  make = pickle.loads(pickle.dumps(first_split(*one)))
  (alone,) = make(5, 6)
  assert alone.keys() == load(*one).fields.keys()
  for field, array in alone.items():
    np.testing.assert_array_equal(array, examples[one][5][field])


@pytest.mark.parametrize('one', SETS, ids=str)
def test_entities_of_picture_and_factors_agree(examples, one):
  made = load(*one)
  for example in examples[one]:
    for name, field in made.fields.items():
      assert (example[name].dtype, example[name].shape) == (np.dtype(field.dtype), field.shape)
    visible = example['factor_visibility']
    assert np.unique(example['segmentation']).tolist() == np.flatnonzero(visible).tolist()
    assert visible.tolist() == sorted(visible.tolist(), reverse=True)
    for name in made.info.details['factors']:
      assert not example[f'factor_{name}'][visible == 0].any()
    for name, factor in made.info.details['factors'].items():
      if 'categories' in factor:
        codes = example[f'factor_{name}'][1 : int(visible.sum())]
        assert set(codes.tolist()) <= set(range(1, len(factor['categories']) + 1))


@pytest.mark.parametrize('name', MODULES)
def test_contents_are_as_announced(name):
  made, about = load(name), MODULES[name].ABOUT
  about = about if isinstance(about, About) else about[name]
  contents.validate(made)
  size = sum(
    np.prod(field.shape) * np.dtype(field.dtype).itemsize for field in made.fields.values()
  )
  size *= sum(split.count for split in made.splits.values())
  assert about.built == f'{round(size / 1e6)} MB'
  for word, split in made.splits.items():
    assert f'{word} {split.count:,}' in about.splits
  for word, view in made.views.items():
    assert f'{word} {len(contents.indices_of(made, view)):,}' in about.splits
  json.dumps(made.info.details)


def test_views_of_test_scenes_are_disjoint():
  made = load('demo_tetrominoes')
  indices = {name: contents.indices_of(made, made.views[name]) for name in ('valid', 'test')}
  np.testing.assert_array_equal(indices['test'], np.arange(320))
  assert sorted(np.concatenate(list(indices.values()))) == list(range(1000))


def test_clevrtex_is_split_by_tenths_in_order():
  made = load('demo_clevrtex')
  parts = [contents.indices_of(made, made.views[name]) for name in ('test', 'valid', 'train')]
  assert [len(part) for part in parts] == [400, 400, 3200]
  np.testing.assert_array_equal(np.concatenate(parts), np.arange(4000))


def test_card_names_factors_and_variant(tmp_path):
  card, _ = records.write_dataset(
    tmp_path / 'set', 'demo_clevrtex', load('demo_clevrtex', 'camo'), limit=2
  )
  assert card['variant'] == 'camo'
  assert card['details']['entities'] == 11
  assert card['details']['factors']['shape'] == {
    'width': 1,
    'kind': 'categorical',
    'categories': list(SHAPES),
  }


def test_splits_differ():
  made = load('demo_tetrominoes')
  train, test = (next(made.splits[name].examples(0, 1)) for name in ('train', 'test'))
  assert (train['image'] != test['image']).any()


@pytest.mark.parametrize(
  ('name', 'message'),
  [('demo_clevrtex', 'choose one of: full, camo'), ('demo_clevr6', 'has no variants')],
)
def test_unknown_variant_is_refused(name, message):
  with pytest.raises(DataPrepError, match=f'(?s)variant=outd.*{message}|{message}.*variant=outd'):
    load(name, 'outd')


def test_wrong_photograph_is_refused(monkeypatch, tmp_path):
  Image.new('RGB', (8, 8)).save(tmp_path / 'brick.png')
  monkeypatch.setattr(sources, 'package_file', lambda *_: tmp_path / 'brick.png')
  with pytest.raises(DataPrepError, match=r'brick\.png must be a grey picture of 512x512, but is'):
    load('demo_clevrtex')
  (tmp_path / 'brick.png').write_bytes(b'no picture')
  with pytest.raises(DataPrepError, match=r'brick\.png cannot be read .* pip install'):
    load('demo_clevrtex')


# ---- segmentation out of masks ----


def test_masks_become_a_segmentation():
  expected = np.array([[0, 2, 1], [2, 2, 0]], np.uint8)[..., None]
  masks = np.stack([np.where(expected == entity, 255, 0) for entity in range(4)]).astype(np.uint8)
  segmentation = factors.masks_to_segmentation(masks)
  assert segmentation.dtype == np.uint8
  np.testing.assert_array_equal(segmentation, expected)


@pytest.mark.parametrize(
  ('entity', 'value', 'message'),
  [
    (0, 0, 'row 1, column 2 belongs to 0 of 3 masks'),
    (1, 255, 'row 1, column 2 belongs to 2 of 3 masks'),
    (2, 254, 'mask 2 holds 254 at row 1, column 2'),
  ],
)
def test_masks_that_do_not_partition_are_refused(entity, value, message):
  masks = np.zeros((3, 2, 4, 1), np.uint8)
  masks[0] = 255
  masks[entity, 1, 2] = value
  with pytest.raises(DataPrepError, match=message):
    factors.masks_to_segmentation(masks)


# ---- pictures from factors ----


def test_tetrominoes_follow_from_their_factors():
  """Renders from the factors and the published cell without the builder's code."""
  cell = np.full((5, 5), 159)
  cell[0], cell[4] = [191, 255, 255, 255, 223], [95, 63, 63, 63, 127]
  cell[1:4, 0], cell[1:4, 4] = 127, 191
  scenes = list(first_split('demo_tetrominoes')(0, 300))
  for example in scenes:
    image, segmentation = np.zeros((35, 35, 3)), np.zeros((35, 35, 1))
    for entity in (1, 2, 3):
      piece = factors_of(example, entity)
      rows = demo_tetrominoes.SHAPES[int(piece['shape']) - 1].split('/')
      for i, row in enumerate(rows):
        for j, mark in enumerate(row):
          if mark == '#':
            y, x = int(piece['y']) + 5 * i, int(piece['x']) + 5 * j
            image[y : y + 5, x : x + 5] = cell[..., None] * piece['color']
            segmentation[y : y + 5, x : x + 5] = entity
    np.testing.assert_array_equal(example['image'], image)
    np.testing.assert_array_equal(example['segmentation'], segmentation)
    assert np.bincount(segmentation.ravel().astype(int)).tolist() == [925, 100, 100, 100]
  shapes = np.concatenate([example['factor_shape'][1:] for example in scenes])
  assert np.unique(shapes).tolist() == list(range(1, 18))
  places = np.concatenate([example['factor_x'][1:] for example in scenes])
  assert set(places % 5) == {0, 1, 2, 3, 4}  # no lattice


def test_tetrominoes_are_all_different_and_of_four_cells():
  assert len(set(demo_tetrominoes.SHAPES)) == 17
  assert {shape.count('#') for shape in demo_tetrominoes.SHAPES} == {4}
  assert len(set(demo_tetrominoes.COLORS)) == 6


def test_sprites_follow_from_their_factors():
  scenes = list(first_split('demo_multi_dsprites')(0, 200))
  for example in scenes:
    placed = []
    for entity in np.flatnonzero(example['factor_visibility'])[1:]:
      sprite = factors_of(example, entity)
      placed.append(
        demo_multi_dsprites.Sprite(
          shape=int(sprite['shape']) - 1,
          x=round(sprite['x'] * 31),
          y=round(sprite['y'] * 31),
          scale=round(sprite['scale'] * 10) - 5,
          orientation=round(sprite['orientation'] * 20 / np.pi),
          color=tuple(np.rint(sprite['color'] * 255).astype(int).tolist()),
        )
      )
    grey = round(float(example['factor_color'][0, 0]) * 255)
    image, segmentation = demo_multi_dsprites.render(grey, placed)
    np.testing.assert_array_equal(example['image'], image)
    np.testing.assert_array_equal(example['segmentation'], segmentation)
    assert np.bincount(segmentation.ravel())[1:].min() >= 16
  counts = np.bincount([int(example['factor_visibility'].sum()) - 1 for example in scenes])
  assert counts[:2].sum() == 0
  assert len(counts) == 6
  assert counts[2:].min() > 50 - 4 * np.sqrt(200 * 0.25 * 0.75)  # uniform, to 4 deviations


@pytest.mark.parametrize('scale', [0, 5])
@pytest.mark.parametrize('orientation', [0, 7, 20])
def test_sprites_have_their_areas(scale, orientation):
  radius = 14 * sprites.scale_value(scale)
  # The square has half sides of 11/14 radius; the heart has area 3.66 in its own units.
  expected = ((11 / 7 * radius) ** 2, np.pi * radius**2 * 5 / 8, 3.66 * (radius / 1.2) ** 2)
  areas = [sprites.mask(shape, 15, 15, scale, orientation).sum() for shape in range(3)]
  # A border of about 2 pi radii, off by a fifth of a pixel on average.
  np.testing.assert_allclose(areas, expected, atol=2 * np.pi * radius * 0.2)


def test_heart_stands_upright():
  rows = sprites.mask(2, 15, 15, 5, 0).sum(1)
  filled = np.flatnonzero(rows)
  assert rows[filled[0] : filled[0] + 8].sum() > 2 * rows[filled[-1] - 7 : filled[-1] + 1].sum()
  np.testing.assert_array_equal(
    sprites.mask(2, 15, 15, 5, 20).sum(1)[32:45] > 0, rows[[*range(30, 17, -1)]] > 0
  )


def test_hues_run_around_the_circle():
  assert demo_multi_dsprites.hsv_to_rgb(0, 255, 255) == (255, 0, 0)
  assert demo_multi_dsprites.hsv_to_rgb(2 * 256, 255, 255) == (0, 255, 0)
  assert demo_multi_dsprites.hsv_to_rgb(4 * 256, 255, 128) == (0, 0, 128)
  for hue in range(1536):
    levels = demo_multi_dsprites.hsv_to_rgb(hue, 128, 255)
    assert (max(levels), min(levels)) == (255, 127)


# ---- scenes of CLEVR ----


@pytest.fixture(scope='module')
def settings():
  return [clevr_scenes.draw_setting(draws.generator(7, 0, index), RULES) for index in range(160)]


@pytest.mark.slow
def test_number_of_objects_is_uniform(settings):
  counts = np.bincount([len(setting.placed) for setting in settings], minlength=7)
  assert counts[:3].sum() == 0
  assert len(counts) == 7
  assert abs(counts[3:] - 40).max() < 4 * np.sqrt(160 * 0.25 * 0.75)


@pytest.mark.slow
def test_objects_keep_their_distance_and_are_seen(settings):
  for setting in settings:
    for this, placed in enumerate(setting.placed):
      x, y, z = placed.solid.center
      assert max(abs(x), abs(y)) <= 3
      assert z == placed.solid.radius  # it stands on the ground
      for other in setting.placed[:this]:
        gap = np.hypot(x - other.solid.center[0], y - other.solid.center[1])
        assert gap >= RULES.sizes[placed.size] + RULES.sizes[other.size] + 0.25
    visible = np.bincount(setting.hits.number, minlength=len(setting.placed) + 1)
    assert visible[1:].min() >= 64
    assert visible[0] > 0


@pytest.mark.parametrize('name', ['demo_clevr6', 'demo_clevr10'])
def test_pixel_coordinates_point_at_the_object_or_one_before_it(examples, name):
  """Projects the stored coordinates of the frame to the cropped and resized picture."""
  for example in examples[name, None]:
    side = example['image'].shape[0]
    for entity in np.flatnonzero(example['factor_visibility'])[1:]:
      x, y, depth = example['factor_pixel_coords'][entity]
      at = int((y - 29) * side / 192), int((x - 64) * side / 192)
      seen_entity = int(example['segmentation'][at][0])
      assert seen_entity > 0
      assert seen_entity == entity or example['factor_pixel_coords'][seen_entity, 2] < depth


def test_colors_are_those_of_the_factors(examples):
  """Compares the hue of a rubber object's brightest pixels with its colour."""
  seen = 0
  for example in examples['demo_clevr10', None]:
    rubber = np.flatnonzero(example['factor_material'] == 1)
    for entity in rubber:
      name, level = list(demo_clevr.COLORS.items())[int(example['factor_color'][entity]) - 1]
      pixels = example['image'][example['segmentation'][..., 0] == entity].astype(float)
      if len(pixels) > 100 and name != 'gray':
        median = np.median(pixels, 0)
        assert np.corrcoef(median, level)[0, 1] > 0.95
        seen += 1
  assert seen > 10


def test_camo_uses_one_material_and_the_same_places(examples):
  camo, full = examples['demo_clevrtex', 'camo'], examples['demo_clevrtex', None]
  for hidden, plain in zip(camo, full, strict=True):
    present = hidden['factor_visibility'] == 1
    assert len(np.unique(hidden['factor_material'][present])) == 1
    assert len(np.unique(plain['factor_material'][present])) > 1
    np.testing.assert_array_equal(hidden['segmentation'], plain['segmentation'])
