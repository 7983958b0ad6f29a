"""Checkpoints of EfficientMORL: its two models, names of old files, transposed kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tetrominoes
from hvae_tpu import models
from hvae_tpu.errors import UserError
from hvae_tpu.importers import conversion, efficient_morl, tables
from hvae_tpu.models.efficient_morl import EfficientMORL
from hvae_tpu.models.efficient_morl.decoders import Decoder
from hvae_tpu.models.efficient_morl.slot_attention import SlotAttention
from hvae_tpu.runs import restore
from hvae_tpu.storage.tensor_files import Container
from tests.support import foreign

MODEL = EfficientMORL(image_size=12, zdim=4, image_decoder='small')


def tensors(model) -> dict[str, np.ndarray]:
  """Makes the arrays of a file, by the reference's names; the baseline has no state."""
  rng = np.random.default_rng(0)
  arrays = {
    e.key: rng.standard_normal(e.shape).astype(np.float32)
    for e in efficient_morl.PYTORCH.entries(model)
  }
  if isinstance(model, EfficientMORL):
    arrays |= {'geco_C_ema': np.float32(-3.5), 'geco_beta': np.float32(1.25)}
  return arrays


def container(arrays: dict[str, np.ndarray]) -> Container:
  tree = {'step': 200_000, 'model': {f'module.{key}': value for key, value in arrays.items()}}
  tree |= {'model_opt': {'state': {0: {'exp_avg': np.ones(3, np.float32)}}}, 'kl_beta': 1.0}
  return Container('PyTorch file', tree, {}, '')


def test_weights_and_state_are_told_apart():
  contents = efficient_morl.PYTORCH.contents(container(tensors(MODEL)))
  assert contents.meta == {'step': 200_000} and set(contents.aside) == {
    'step',
    'model_opt',
    'kl_beta',
  }
  batch = efficient_morl.PYTORCH.batch(MODEL, {})
  fields = efficient_morl.PYTORCH.tables(MODEL)
  state = tables.import_params(fields['model_state'], contents.fields['model_state'])
  assert (state['geco']['c_ema'], state['geco']['beta']) == (np.float32(-3.5), np.float32(1.25))
  params = tables.import_params(fields['params'], contents.fields['params'])
  shapes, _ = jax.eval_shape(MODEL.init, jax.random.key(0), batch)
  jax.tree.map(lambda p, s: np.testing.assert_equal(p.shape, s.shape), params, shapes)


def test_names_of_old_files():
  new, old = tensors(MODEL), {}
  for key, value in new.items():
    bare = key.removeprefix('hvae_networks.')
    is_encoder = bare.startswith(('pos_embed_projection', 'encoder_pt'))
    if key.startswith('hvae_networks.') and not is_encoder:
      bare = f'object_discovery_block.{bare}'
    old[bare] = value
  zeros = np.zeros((4, 4), np.float32)
  old |= {
    'object_discovery_block.gru.cell.zeros': zeros,
    'object_discovery_block.gru.cell.zeros_n': zeros,
    'generation_relation.0.weight': zeros,
  }
  fields = efficient_morl.PYTORCH.contents(container(old)).fields
  expected = efficient_morl.PYTORCH.contents(container(new)).fields
  assert fields['params'].keys() == expected['params'].keys()
  for key, value in expected['params'].items():
    np.testing.assert_array_equal(fields['params'][key], value)


def test_names_that_become_one_are_refused():
  arrays = tensors(MODEL)
  twice = arrays | {'object_discovery_block.init_posterior': arrays['hvae_networks.init_posterior']}
  with pytest.raises(UserError, match='init_posterior occurs under an old and a new name'):
    efficient_morl.PYTORCH.contents(container(twice))


def test_the_baseline_keeps_its_names():
  model = SlotAttention(image_size=12, zdim=4)
  contents = efficient_morl.PYTORCH.contents(container(tensors(model)))
  assert 'model_state' not in contents.fields
  fields = efficient_morl.PYTORCH.tables(model)
  assert set(fields) == {'params'}
  tables.import_params(fields['params'], contents.fields['params'])


def test_the_other_model_is_refused():
  params = efficient_morl.PYTORCH.contents(container(tensors(MODEL))).fields['params']
  with pytest.raises(UserError, match='missing: .*not expected'):
    tables.import_params(
      efficient_morl.PYTORCH.entries(SlotAttention(image_size=12, zdim=4)), params
    )


def test_transposed_kernels_are_turned():
  """One input pixel spreads the kernel, as PyTorch's transposed convolution does."""
  model = SlotAttention(image_size=96, zdim=1, image_decoder='big')
  arrays = {key: np.zeros_like(value) for key, value in tensors(model).items()}
  native = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
  arrays['image_decoder.decode.0.weight'][:1, :1] = native
  params = tables.import_params(efficient_morl.PYTORCH.entries(model), arrays)
  kernel = params['decoder']['big']['conv_0']['kernel'][:, :, 0, 0]
  np.testing.assert_array_equal(kernel, native[0, 0, ::-1, ::-1])
  out = Decoder('big', 96, jnp.float32).apply(
    {'params': params['decoder']}, np.ones((1, 1), np.float32)
  )
  assert out.shape == (1, 96, 96, 4)


@pytest.mark.slow
def test_a_checkpoint_becomes_a_run(tmp_path):
  """Adds the multiplier of GECO to the weights, as the reference does."""
  config = tetrominoes.get_config('efficient_morl,debug')
  arrays = tensors(models.create(config.model.to_dict(), 'cpu'))
  named = {f'module.{key}': np.asarray(value) for key, value in arrays.items()}
  source = foreign.write(tmp_path / 'emorl-state-200000.pth', named)
  report = conversion.import_run(
    'efficient_morl', str(source), tmp_path / 'run', config, step=200_000
  )
  assert report['tensors'] == len(arrays)
  opened = restore.open_run(tmp_path / 'run')
  assert opened.state.step == 200_000
  assert float(opened.state.model_state['geco']['beta']) == 1.25
