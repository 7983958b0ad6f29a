"""Name tables of reference checkpoints: exact inverses, and errors that name what differs."""

from flax import traverse_util
import jax
import numpy as np
import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.importers import (
  efficient_morl,
  efficient_vdvae_jax,
  efficient_vdvae_torch,
  openai_vdvae,
  tables,
  vdvae_jax,
)
from hvae_tpu.importers.containers import Container
from hvae_tpu.models.efficient_morl import EfficientMORL
from hvae_tpu.models.efficient_morl.slot_attention import SlotAttention
from hvae_tpu.models.efficient_vdvae import EfficientVDVAE
from hvae_tpu.models.vdvae import VDVAE

# Runs of several blocks, widths that grow, resolutions with and without a learned map.
MODEL = VDVAE(
  image_size=16,
  width=8,
  zdim=3,
  custom_width_str='8:12,2:16,1:20',
  enc_blocks='16x2,16d2,8x3,8d4,2x1,2d2,1x2',
  dec_blocks='1x2,2m1,8m2,8x3,16m8,16x2',
  no_bias_above=8,
  num_mixtures=2,
)
# Runs over several levels, blocks without a skip, several cells, cells of another depth.
EFFICIENT = EfficientVDVAE(
  image_size=16,
  input_conv_filters=8,
  up_n_blocks_per_res=(0, 2, 0, 0),
  up_n_blocks=(2, 1, 1, 1),
  up_filters=(12, 12, 12, 16),
  down_strides=(2, 4, 1, 2),
  down_n_blocks_per_res=(0, 0, 1, 1),
  down_n_layers=(0, 2, 2, 1),
  down_filters=(16, 12, 12, 8),
  zdim=3,
  num_mixtures=2,
)
FORMATS = {
  'openai_vdvae': (openai_vdvae, MODEL),
  'vdvae_jax': (vdvae_jax, MODEL),
  'efficient_vdvae_jax': (efficient_vdvae_jax, EFFICIENT),
  'efficient_vdvae_torch': (efficient_vdvae_torch, EFFICIENT),
  'efficient_morl': (efficient_morl, EfficientMORL(image_size=16, zdim=6)),
  'efficient_morl-single_gru': (
    efficient_morl,
    EfficientMORL(image_size=16, zdim=6, use_dual_gru=False, image_decoder='iodine'),
  ),
  'slot_attention': (efficient_morl, SlotAttention(image_size=16, zdim=6)),
}


@pytest.fixture(scope='module', params=FORMATS)
def case(request):
  """A model, and its table in one format."""
  form, model = FORMATS[request.param]
  return model, form.entries(model)


@pytest.fixture(scope='module')
def table(case):
  return case[1]


@pytest.fixture
def tensors(table):
  rng = np.random.RandomState(0)
  return {e.key: rng.standard_normal(e.shape).astype(np.float32) for e in table}


def test_source_to_ours_and_back(table, tensors):
  back = tables.export_params(table, tables.import_params(table, tensors))
  assert list(back) == [e.key for e in table]
  for key, tensor in tensors.items():
    np.testing.assert_array_equal(back[key], tensor, strict=True)


def test_ours_to_source_and_back(case):
  model, table = case
  image = np.zeros((1, 16, 16, 3), np.uint8)
  shapes = jax.eval_shape(model.init, jax.random.key(0), {'image': image})[0]
  rng = np.random.RandomState(0)
  params = jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(np.float32), shapes)
  back = tables.import_params(table, tables.export_params(table, params))
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), back, params)


def test_blocks_keep_their_order(case):
  """Blocks of a run are stacked in order of execution, and runs follow each other."""
  model, table = case
  if isinstance(model, EfficientMORL | SlotAttention):
    pytest.skip('its layers share their weights')
  marked = {e.key: np.full(e.shape, i, np.float32) for i, e in enumerate(table)}
  params = tables.import_params(table, marked)
  if isinstance(model, VDVAE):
    side, runs, part = params['decoder'], model.decoder_runs, 'z_proj'
  else:
    side, runs, part = params['top_down'], model.down_runs, 'z_projection'
  numbers = [number for run in runs for number in side[run.name][part]['bias'][:, 0]]
  assert numbers == sorted(numbers) and len(set(numbers)) == len(model.level_names)


def test_convolutions_are_transposed():
  names = openai_vdvae.entries(MODEL)
  tensors = {e.key: np.zeros(e.shape, np.float32) for e in names}
  tensors['encoder.in_conv.weight'][5, 2, 0, 1] = 1  # output 5, input 2, row 0, column 1
  kernel = tables.import_params(names, tensors)['encoder']['in_conv']['kernel']
  assert np.argwhere(kernel).tolist() == [[0, 1, 2, 5]]


@pytest.mark.parametrize('name', ['efficient_vdvae_jax', 'efficient_vdvae_torch'])
def test_both_weights_of_a_published_file_are_found(name):
  form, model = FORMATS[name]
  one = {e.key: np.ones(e.shape, np.float32) for e in form.entries(model)}
  two = {key: 2 * array for key, array in one.items()}
  if name == 'efficient_vdvae_torch':
    tree = {'global_step': 7, 'model_state_dict': one, 'ema_model_state_dict': two}
    tree['optimizer_state_dict'] = {'state': {0: {'step': 7, 'exp_avg': np.ones(3)}}}
  else:
    tree = {'step': np.int32(7), 'params': one, 'ema_params': two}
    tree['opt_state'] = {'0': {'count': np.int32(7)}}
  found = form.contents(Container('file', tree, {}, ''))
  for field, arrays in (('params', one), ('ema_params', two)):
    assert set(found.fields[field]) == set(arrays)
    assert all((found.fields[field][key] == arrays[key]).all() for key in arrays)
  assert any('step' in path for path in found.aside) and found.meta == {'step': 7}
  assert form.contents(Container('file', one, {}, '')).fields.keys() == {'params'}


def test_names_are_brought_into_the_form_of_the_table():
  assert openai_vdvae.rename({'module.decoder.gain': 1, 'decoder.bias': 2}) == {
    'decoder.gain': 1,
    'decoder.bias': 2,
  }
  nested = {'decoder': {'gain': 1, 'out_net': {'out_conv': {'bias': 2}}}}
  joined = {'decoder/gain': 1, 'decoder/out_net/out_conv/bias': 2}
  assert vdvae_jax.rename(nested) == joined
  assert vdvae_jax.rename(joined) == joined


def test_disagreements_are_named(table, tensors):
  first, second, third = (table[i] for i in (0, 1, 2))
  del tensors[first.key]
  tensors['surplus'] = np.zeros((2, 3), np.float32)
  tensors[second.key] = np.zeros(7, np.float32)
  tensors[third.key] = tensors[third.key].astype(np.float64)
  with pytest.raises(UserError) as caught:
    tables.import_params(table, tensors, 'weights.npz')
  message = str(caught.value)
  assert message.startswith('weights.npz and config.model differ: ')
  assert f'1 missing: {first.key} {first.shape}' in message
  assert '1 not expected: surplus (2, 3)' in message
  wrong = f'2 of another kind: {second.key} is float32 (7,), expected float32 {second.shape}'
  assert wrong in message
  assert f'{third.key} is float64 {third.shape}' in message


def test_long_lists_are_cut(table):
  with pytest.raises(UserError) as caught:
    tables.import_params(table, {})
  message = str(caught.value)
  assert f'{len(table)} missing: ' in message
  shown = [e for e in table if f' {e.key} ' in message]
  assert len(shown) == tables.SHOWN and ', ...' in message


def test_export_refuses_other_parameters(table, tensors):
  params = tables.import_params(table, tensors)
  flat = traverse_util.flatten_dict(params)
  gone, changed = list(flat)[0], list(flat)[1]
  shape = flat.pop(gone).shape
  expected, flat[changed] = flat[changed].shape, np.zeros((1, 8, 1), np.float32)
  with pytest.raises(UserError) as caught:
    tables.export_params(table, traverse_util.unflatten_dict(flat))
  assert f'1 missing: {"/".join(gone)} {shape}' in str(caught.value)
  text = f'{"/".join(changed)} is float32 (1, 8, 1), expected float32 {expected}'
  assert text in str(caught.value)


def test_a_table_must_cover_the_parameters_exactly():
  params = {'a': np.zeros((2, 3), np.float32), 'b': np.zeros(3, np.float32)}
  rows = [tables.Row(('a',), i, f'a{i}', tables.SAME) for i in range(2)]
  last = tables.Row(('b',), None, 'b', tables.SAME)
  assert [e.shape for e in tables.complete([*rows, last], params)] == [(3,), (3,), (3,)]
  for wrong in (
    rows,
    [*rows, last, last],
    [rows[0], last],
    [*rows, rows[1]._replace(index=2), last],
  ):
    with pytest.raises(ValueError):
      tables.complete(wrong, params)
