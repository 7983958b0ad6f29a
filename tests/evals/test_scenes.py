"""Evaluations of scenes by hand, traversals of slots, and the fields of records that they need."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.evals import colour_kmeans_baseline, scene_records, segmentation, textures, traversals
from hvae_tpu.metrics.rand_index import adjusted_rand_index
from tests.support import tiny

RNG = jax.random.key(0)


def test_colours_of_clusters():
  colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.float32)
  owners = np.repeat(np.arange(3), 20)
  points = colours[owners] + np.random.default_rng(0).integers(-9, 10, (60, 3))
  assert adjusted_rand_index(owners, colour_kmeans_baseline.clusters(points, 3), False) == 1


def test_ranges_and_limits():
  slots = np.array([[[0.0, 2.0], [4.0, -2.0]], [[1.0, 0.0], [1.0, 0.0]]])
  between = traversals.latent_range(slots)
  np.testing.assert_array_equal(between, [[0, 4], [-2, 2]])
  np.testing.assert_array_equal(traversals.limits(between), between)
  # The middle of the reference is half the width: 2 and 2.
  expected = [[2 - 2**0.5, 2 + 2**0.5], [0.0, 2.0]]
  np.testing.assert_allclose(traversals.limits(between, 'reference'), expected)
  np.testing.assert_allclose(traversals.steps(between, 3), [[0, 2, 4], [-2, 0, 2]])
  with pytest.raises(UserError, match='must be range or reference'):
    traversals.limits(between, 'both')


class Painter:
  """A slot is the grey level of its picture, and the logit of its mask."""

  def paint(self, params, slots):
    shape = (*slots.shape[:-1], 2, 2)
    rgb = jnp.broadcast_to(slots[..., 0, None, None, None], (*shape, 3))
    return rgb, jnp.broadcast_to(slots[..., 1, None, None], shape)


def test_sweeps_change_one_dimension_of_one_slot():
  slots = jnp.array([[0.2, 0.0], [0.6, 0.0]])
  values = jnp.array([[0.0, 1.0], [-50.0, 50.0]])
  pictures, masks = traversals.sweep(Painter())({}, slots, jnp.int32(1), values)
  assert pictures.shape == (2, 2, 2, 2, 3) and masks.shape == (2, 2, 2, 2, 2)
  np.testing.assert_allclose(pictures[0, :, 0, 0, 0], [0.1, 0.6], atol=1e-6)
  np.testing.assert_allclose(pictures[1, :, 0, 0, 0], [0.2, 0.6], atol=1e-6)
  active = traversals.activeness(Painter())({}, slots[None], jnp.array([1]), values)
  np.testing.assert_allclose(active, [[0.125, 0.08]], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['efficient_morl', 'slot_attention'])
def test_evaluations_of_a_model(name):
  """Means over the examples that are no padding; pictures of the first; the same by hand."""
  model, batch = tiny.SYSTEMS[name].model, tiny.batch(name)
  params, state = model.init(RNG, batch)
  owners = np.random.default_rng(0).integers(0, 4, (4, 8, 8, 1)).astype(np.uint8)
  batch |= {'segmentation': owners, 'mask': np.array([True, True, True, False])}
  batches = lambda role=None: iter([batch])
  results = segmentation.make(model, batches, segmentation.Options(num=2))(params, state, 0, RNG)
  assert results['num_examples'] == 3 and results['scenes'].shape == (16, 8 * 6, 3)
  np.testing.assert_array_equal(results['scenes'][:8, :8], batch['image'][0])
  stages = model.segment(params, state, batch, jax.random.fold_in(RNG, 0))
  slots = np.asarray(stages.log_masks[:, -1].argmax(1))
  expected = [adjusted_rand_index(owners[i, ..., 0], slots[i]) for i in range(3)]
  np.testing.assert_allclose(results['ari'], np.mean(expected), atol=1e-6)
  assert ('ari_0' in results) == ('kl' in results) == (name == 'efficient_morl')
  if 'kl' in results:
    np.testing.assert_allclose(results['kl_1'], stages.kl[:3, 1].mean(), rtol=1e-5)
  overlaps = textures.make(model, batches)(params, state, 0, RNG)
  clusters = colour_kmeans_baseline.make(model, batches)(params, state, 0, RNG)
  assert overlaps['num_examples'] == clusters['num_examples'] == 3
  np.testing.assert_allclose(overlaps['mse_sum'], 192 * results['mse'], rtol=1e-4)


@pytest.mark.parametrize('evaluation', [segmentation, textures, colour_kmeans_baseline])
def test_records_without_objects_are_told(evaluation):
  model, batch = tiny.SYSTEMS['slot_attention'].model, tiny.batch('slot_attention')
  params, state = model.init(RNG, batch)
  run = evaluation.make(model, lambda role=None: iter([batch | {'mask': np.ones(4, bool)}]))
  with pytest.raises(
    UserError, match="no segmentation, .* add 'segmentation' to config.data.fields"
  ):
    run(params, state, 0, RNG)


def test_masks_are_enlarged_to_those_of_the_records():
  masks = np.zeros((1, 2, 4, 4))
  masks[0, 0, :, :2], masks[0, 1, :, 2:] = 1, 1
  owners = segmentation.owners_of(masks, 8)
  np.testing.assert_array_equal(owners[0], np.repeat([[0] * 4 + [1] * 4], 8, axis=0))


@pytest.mark.slow
def test_records_of_scenes():
  model, batch = tiny.SYSTEMS['efficient_morl'].model, tiny.batch('efficient_morl')
  segments = model.segment(*model.init(RNG, batch), batch, RNG)
  first = jax.tree.map(lambda v: np.asarray(v)[0], segments)
  record = scene_records.record(np.asarray(batch['image'])[0], np.zeros((8, 8), int), 4, first)
  shapes = {name: array.shape for name, array in record.items()}
  assert shapes == {
    'data/image': (1, 8, 8, 3),
    'data/true_mask': (1, 4, 1, 8, 8),
    'outputs/recons': (1, 3, 8, 8, 3),
    'outputs/pred_mask': (1, 3, 3, 8, 8, 1),
    'outputs/pred_mask_logits': (1, 3, 3, 8, 8, 1),
    'outputs/components': (1, 3, 3, 8, 8, 3),
    'outputs/attention': (1, 3, 3, 8, 8, 1),
  }
  assert {array.dtype for array in record.values()} == {np.dtype('float32')}
  assert set(np.unique(record['data/true_mask'])) == {0, 255}
  np.testing.assert_allclose(record['outputs/pred_mask'].sum(2), 1, atol=1e-5)
