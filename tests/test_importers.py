"""Name tables of reference checkpoints: exact inverses, and errors that name what differs."""

import jax
import numpy as np
import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.importers import openai_vdvae, tables, vdvae_jax
from hvae_tpu.models.vdvae import VDVAE

FORMATS = {'openai_vdvae': openai_vdvae, 'vdvae_jax': vdvae_jax}
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


@pytest.fixture(scope='module', params=FORMATS)
def table(request):
  return FORMATS[request.param].entries(MODEL)


@pytest.fixture
def tensors(table):
  rng = np.random.RandomState(0)
  return {e.key: rng.standard_normal(e.shape).astype(np.float32) for e in table}


def test_source_to_ours_and_back(table, tensors):
  back = tables.export_params(table, tables.import_params(table, tensors))
  assert list(back) == [e.key for e in table]
  for key, tensor in tensors.items():
    np.testing.assert_array_equal(back[key], tensor, strict=True)


def test_ours_to_source_and_back(table):
  image = np.zeros((1, 16, 16, 3), np.uint8)
  shapes = jax.eval_shape(MODEL.init, jax.random.key(0), {'image': image})[0]
  rng = np.random.RandomState(0)
  params = jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(np.float32), shapes)
  back = tables.import_params(table, tables.export_params(table, params))
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), back, params)


def test_blocks_keep_their_order(table):
  """Blocks of a run are stacked in order of execution, and runs follow each other."""
  marked = {e.key: np.full(e.shape, i, np.float32) for i, e in enumerate(table)}
  params = tables.import_params(table, marked)
  numbers = [
    number
    for run in MODEL.decoder_runs
    for number in params['decoder'][run.name]['z_proj']['bias'][:, 0]
  ]
  assert numbers == sorted(numbers) and len(set(numbers)) == len(MODEL.level_names)


def test_convolutions_are_transposed():
  names = openai_vdvae.entries(MODEL)
  tensors = {e.key: np.zeros(e.shape, np.float32) for e in names}
  tensors['encoder.in_conv.weight'][5, 2, 0, 1] = 1  # output 5, input 2, row 0, column 1
  kernel = tables.import_params(names, tensors)['encoder']['in_conv']['kernel']
  assert np.argwhere(kernel).tolist() == [[0, 1, 2, 5]]


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
  assert f'2 of another kind: {second.key} is float32 (7,), expected float32 (8,)' in message
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
  run = MODEL.decoder_runs[0].name
  params['decoder'][run]['z_proj']['bias'] = np.zeros((1, 8), np.float32)
  del params['gain']
  with pytest.raises(UserError) as caught:
    tables.export_params(table, params)
  assert '1 missing: gain (8,)' in str(caught.value)
  expected = f'decoder/{run}/z_proj/bias is float32 (1, 8), expected float32 (2, 20)'
  assert expected in str(caught.value)


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
