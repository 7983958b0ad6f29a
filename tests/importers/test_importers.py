"""Name tables of reference checkpoints: exact inverses, and errors that name the differences."""

from flax import traverse_util
import jax
import numpy as np
import pytest

from configs.systems.nvae import MGP123
from hvae_tpu.errors import UserError
from hvae_tpu.importers import cwvae, efficient_morl, efficient_vdvae, nvae, tables, trees, vdvae
from hvae_tpu.models.cwvae import CWVAE
from hvae_tpu.models.efficient_morl import EfficientMORL
from hvae_tpu.models.efficient_morl.slot_attention import SlotAttention
from hvae_tpu.models.efficient_vdvae import EfficientVDVAE
from hvae_tpu.models.nvae import NVAE
from hvae_tpu.models.vdvae import VDVAE
from hvae_tpu.storage.tensor_files import Container

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
# Levels with an embedding of several layers.
CLOCKWORK = CWVAE(
  image_channels=1,
  filters=1,
  cell_stoch_size=3,
  cell_deter_size=5,
  cell_embed_size=4,
  enc_dense_layers=2,
  enc_dense_embed_size=7,
)
# Several scales, groups, cells and flows.
NVAE_FIELDS = dict(
  image_size=16,
  num_channels_enc=4,
  num_channels_dec=4,
  num_latent_scales=2,
  num_groups_per_scale=3,
  group_divider=2,
  min_groups_per_scale=2,
  num_cells_enc=2,
  num_flows=1,
  zdim=3,
  num_mixtures=2,
)
FORMATS = {
  'cwvae_jax': (cwvae.JAX, CLOCKWORK),
  'openai_vdvae': (vdvae.OPENAI, MODEL),
  'vdvae_jax': (vdvae.JAX, MODEL),
  'efficient_vdvae_jax': (efficient_vdvae.JAX, EFFICIENT),
  'efficient_vdvae_torch': (efficient_vdvae.PYTORCH, EFFICIENT),
  'nvae': (nvae.NVLABS, NVAE(**NVAE_FIELDS)),
  'nvae_seed': (nvae.MGP123, NVAE(**{**MGP123, **NVAE_FIELDS})),
  'efficient_morl': (
    efficient_morl.PYTORCH,
    EfficientMORL(image_size=16, zdim=6, image_decoder='small'),
  ),
  'efficient_morl-single_gru': (
    efficient_morl.PYTORCH,
    EfficientMORL(image_size=16, zdim=6, use_dual_gru=False, image_decoder='iodine'),
  ),
  'slot_attention': (efficient_morl.PYTORCH, SlotAttention(image_size=16, zdim=6)),
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
  batch = {'image': np.zeros((1, 16, 16, 3), np.uint8)}
  if isinstance(model, CWVAE):
    batch = {'video': np.zeros((1, 2, 64, 64, 1), np.uint8)}
  shapes = jax.eval_shape(model.init, jax.random.key(0), batch)[0]
  rng = np.random.RandomState(0)
  params = jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(np.float32), shapes)
  back = tables.import_params(table, tables.export_params(table, params))
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), back, params)


def test_blocks_keep_their_order(case):
  """Blocks of a run are stacked in order of execution, and runs follow each other; so do gates."""
  model, table = case
  if isinstance(model, EfficientMORL | SlotAttention):
    pytest.skip('its layers share their weights')
  marked = {e.key: np.full(e.shape, i, np.float32) for i, e in enumerate(table)}
  params = tables.import_params(table, marked)
  if isinstance(model, CWVAE):
    gates = [params[f'cells_{i}']['gru']['input_bias'][:, 0] for i in range(model.levels)]
    assert np.diff(np.concatenate(gates)).min() > 0
    return
  if isinstance(model, NVAE):
    side, runs, part = params['top_down'], model.top_down_runs, 'dec_sampler'
    # The first group, of its own kind, has no such part.
    assert len(model.level_names) == 1 + sum(run.count for run in runs)
    numbers = [number for run in runs for number in side[run.name][part]['bias'][:, 0]]
    assert numbers == sorted(numbers)
    # Features of the encoder reach the groups in the reverse order.
    numbers = [n for run in runs for n in side[run.name]['enc_combiner']['bias'][:, 0]]
    assert numbers == sorted(numbers)
    return
  if isinstance(model, VDVAE):
    side, runs, part = params['decoder'], model.decoder_runs, 'z_proj'
  else:
    side, runs, part = params['top_down'], model.down_runs, 'z_projection'
  numbers = [number for run in runs for number in side[run.name][part]['bias'][:, 0]]
  assert numbers == sorted(numbers) and len(set(numbers)) == len(model.level_names)


@pytest.mark.parametrize('name', ['nvae', 'nvae_seed'])
def test_statistics_are_told_from_weights(name):
  """Imports a whole published file: arrays that follow from others are set aside and counted."""
  form, model = FORMATS[name]
  fields = form.tables(model)
  rng = np.random.RandomState(0)
  arrays = {
    e.key: rng.standard_normal(e.shape).astype(np.float32)
    for entries in fields.values()
    for e in entries
  }
  extra = {'stem.num_batches_tracked': np.ones(3), 'dec_tower.1.weight_normalized': np.ones(2)}
  tree = {'epoch': 7, 'state_dict': {**arrays, **extra}, 'optimizer': {'state': np.ones(2)}}
  contents = form.contents(Container('file', tree, {}, ''))
  for field, entries in fields.items():
    assert set(contents.fields[field]) == {e.key for e in entries}
    tree = tables.import_params(entries, contents.fields[field])
    back = tables.export_params(entries, tree)
    assert all((back[key] == arrays[key]).all() for key in back)
  assert contents.aside['num_batches_tracked'] == contents.aside['weight_normalized'] == 1


def test_flags_of_a_file_are_compared_with_the_config():
  form, model = FORMATS['nvae']
  form.check(model, {'flags': {'num_nf': 1, 'num_latent_per_group': 3, 'seed': 1}})
  with pytest.raises(UserError) as caught:
    form.check(model, {'flags': {'num_nf': 2, 'num_x_bits': 5}})
  assert 'config.model.num_flows=1 (--num_nf was 2)' in str(caught.value)
  assert 'config.model.num_bits=8 (--num_x_bits was 5)' in str(caught.value)


def test_convolutions_are_transposed():
  names = vdvae.OPENAI.entries(MODEL)
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
  contents = form.contents(Container('file', tree, {}, ''))
  for field, arrays in (('params', one), ('ema_params', two)):
    assert set(contents.fields[field]) == set(arrays)
    assert all((contents.fields[field][key] == arrays[key]).all() for key in arrays)
  assert any('step' in path for path in contents.aside) and contents.meta == {'step': 7}
  assert form.contents(Container('file', one, {}, '')).fields.keys() == {'params'}


def test_names_are_brought_into_the_form_of_the_table():
  assert trees.without_module({'module.decoder.gain': 1, 'decoder.bias': 2}) == {
    'decoder.gain': 1,
    'decoder.bias': 2,
  }
  one, two = np.float32(1), np.float32(2)
  nested = {'decoder': {'gain': one, 'out_net': {'out_conv': {'bias': two}}}}
  joined = {'decoder/gain': one, 'decoder/out_net/out_conv/bias': two}
  assert trees.flatten(nested, '/') == joined
  assert trees.flatten(joined, '/') == joined


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
  text = f'2 of another kind: {second.key} is float32 (7,), expected float32 {second.shape}'
  assert text in message
  assert f'{third.key} is float64 {third.shape}' in message


def test_long_lists_are_cut(table):
  with pytest.raises(UserError) as caught:
    tables.import_params(table, {})
  message = str(caught.value)
  assert f'{len(table)} missing: ' in message
  shown = [e for e in table if f' {e.key} ' in message]
  assert len(shown) == tables.MAX_NAMES and ', ...' in message


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


def test_gates_of_keras_are_put_in_our_order():
  """Reorders blocks z, r, n; adds the two biases of each gate, except for the new state."""
  size = 2
  leaves = {
    'kernel': np.arange(3 * 3 * size, dtype=np.float32).reshape(3, 3 * size),
    'recurrent_kernel': np.arange(3 * size * size, dtype=np.float32).reshape(size, 3 * size),
    'bias': np.arange(2 * 3 * size, dtype=np.float32).reshape(2, 3 * size),
  }
  dense = {f'x/dense_{i}/kernel': np.zeros((1, 1)) for i in range(1, 9)}
  dense |= {f'x/dense_{i}/bias': np.full(1, i) for i in range(1, 9)}
  dense |= {'x/dense/kernel': np.zeros((1, 1)), 'x/dense/bias': np.zeros(1)}
  gru = {f'scan/while/cell_0/gru_cell/{k}': v for k, v in leaves.items()}
  arrays = cwvae.from_keras({**gru, **dense})
  name = 'model/RSSMCell_0/RSSMPrior_0/GRUCell_0'
  np.testing.assert_array_equal(arrays[f'{name}/ir/bias'], [2 + 8, 3 + 9])
  np.testing.assert_array_equal(arrays[f'{name}/in/bias'], [4, 5])
  np.testing.assert_array_equal(arrays[f'{name}/hn/bias'], [10, 11])
  np.testing.assert_array_equal(arrays[f'{name}/iz/kernel'], leaves['kernel'][:, :2])
  assert arrays['decoder/Dense_0/bias'] == 8
  assert arrays['model/RSSMCell_0/RSSMPosterior_0/Dense_0/bias'] == 4
  with pytest.raises(UserError, match='1 GRU cells need at least 9 dense layers, found 1'):
    cwvae.from_keras({**gru, 'x/dense/kernel': np.zeros((1, 1))})
  with pytest.raises(UserError, match='x/batch_norm/gamma is no variable of a Clockwork VAE'):
    cwvae.from_keras({'x/batch_norm/gamma': np.zeros(1)})
  with pytest.raises(UserError, match='y/dense_3/bias is the second bias of its layer'):
    cwvae.from_keras({**gru, **dense, 'y/dense_3/bias': np.zeros(1)})
  before = {**gru, 'scan/while/cell_0/gru_cell/bias': np.zeros(6)}
  with pytest.raises(UserError, match=r'bias of a GRU cell has shape \[6\], expected \[2, 6\]'):
    cwvae.from_keras({**before, **dense})
  del dense['x/dense_3/bias']
  with pytest.raises(UserError, match='dense number 3 has no bias; give the variables of a whole'):
    cwvae.from_keras({**gru, **dense})
