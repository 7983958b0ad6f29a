"""The mesh, and where batches and states lie on it."""

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.models.nvae import convs as nvae_convs
from hvae_tpu.nn import layers, rows


@pytest.mark.parametrize(
  ('sizes', 'expected'),
  [
    ((-1, 1), (8, 1, 1)),
    ((-1, 2), (4, 2, 1)),
    ((2, -1), (2, 4, 1)),
    ((8, 1), (8, 1, 1)),
    ((-1, 1, None, 4), (2, 1, 4)),
    ((2, 2, None, -1), (2, 2, 2)),
  ],
)
def test_mesh(sizes, expected):
  mesh = sharding.make_mesh(*sizes)
  assert dict(mesh.shape) == dict(zip(('data', 'fsdp', 'spatial'), expected, strict=True))
  assert list(mesh.devices.flat) == jax.devices()


@pytest.mark.parametrize('sizes', [(-1, -1), (3, 1), (-1, 3), (0, 8), (-1, 0), (4, 1), (-2, -4)])
def test_meshes_that_do_not_fit(sizes):
  with pytest.raises(UserError) as caught:
    sharding.make_mesh(*sizes)
  message = str(caught.value)
  assert f'config.mesh.data={sizes[0]} and config.mesh.fsdp={sizes[1]}' in message
  assert '8 devices' in message and '[1, 2, 4, 8]' in message


def test_batch_sizes():
  mesh = sharding.make_mesh(4, 2)
  sharding.check_batch_size(16, mesh)
  with pytest.raises(UserError, match='config.train.batch_size=100 .* try 96 or 104'):
    sharding.check_batch_size(100, mesh)
  with pytest.raises(UserError, match='config.evals.batch_size=3 .* 8 devices; try 8'):
    sharding.check_batch_size(3, mesh, 'evals.batch_size')
  with pytest.raises(UserError, match='config.train.batch_size=0'):
    sharding.check_batch_size(0, mesh)


def test_groups_share_an_example():
  mesh = sharding.make_mesh(-1, 1, spatial=4)
  sharding.check_batch_size(2, mesh)
  with pytest.raises(UserError, match='config.train.batch_size=3 .* 2 groups of 4; try 2 or 4'):
    sharding.check_batch_size(3, mesh)
  with pytest.raises(UserError, match='config.mesh.spatial=3 must multiply to the 8 devices'):
    sharding.make_mesh(-1, 1, spatial=3)
  batch = {
    'image': np.arange(2 * 8 * 3 * 1, dtype=np.uint8).reshape(2, 8, 3, 1),
    'video': np.zeros((2, 5, 8, 3, 1), np.uint8),
    'mask': np.ones(2, bool),
    'odd': np.zeros((2, 7, 3, 1), np.uint8),
  }
  placed = sharding.put(batch, mesh)
  shard = {name: array.addressable_shards[0].data.shape for name, array in placed.items()}
  assert shard == {
    'image': (1, 2, 3, 1),
    'video': (1, 5, 2, 3, 1),
    'mask': (1,),
    'odd': (1, 7, 3, 1),
  }
  np.testing.assert_array_equal(placed['image'], batch['image'])


@pytest.mark.parametrize(
  'module',
  [
    layers.Conv(6, 1, nn.initializers.ones, jnp.float32),
    layers.Conv(6, 2, nn.initializers.ones, jnp.float32, stride=2),
    nvae_convs.Conv(6, 1, 'log', jnp.float32),
  ],
  ids=['pointwise', 'patches', 'nvae'],
)
def test_products_leave_rows_where_they_are(module):
  mesh = sharding.make_mesh(2, 1, spatial=4)
  x = np.random.default_rng(0).standard_normal((4, 32, 6, 5)).astype(np.float32)
  params = module.init(jax.random.key(0), x)
  place = sharding.batch_sharding(mesh, x.shape)

  def program():
    objective = lambda params, x: jnp.square(module.apply(params, rows.split_rows(x))).sum()
    return jax.jit(jax.grad(objective, argnums=(0, 1)))

  expected = program()(params, x)
  with jax.set_mesh(mesh):
    compiled = program().lower(params, jax.device_put(x, place)).compile()
  results = compiled(params, jax.device_put(x, place))
  for ours, other in zip(*map(jax.tree.leaves, (results, expected)), strict=True):
    np.testing.assert_allclose(ours, other, atol=1e-5 * np.abs(other).max())
  assert results[1].sharding.is_equivalent_to(place, x.ndim)
  assert 'all-reduce' in compiled.as_text() and 'all-gather' not in compiled.as_text()


def test_batches_lie_over_both_axes():
  mesh = sharding.make_mesh(4, 2)
  rows = np.arange(16 * 3, dtype=np.uint8).reshape(16, 3)
  placed = sharding.put({'image': rows}, mesh)['image']
  np.testing.assert_array_equal(placed, rows)
  shards = {shard.device: np.asarray(shard.data) for shard in placed.addressable_shards}
  for i, device in enumerate(mesh.devices.flat):
    np.testing.assert_array_equal(shards[device], rows[2 * i : 2 * i + 2])


@pytest.mark.parametrize(
  ('path', 'shape', 'spec'),
  [
    (('dense', 'kernel'), (256, 512), (None, 'fsdp')),
    (('dense', 'kernel'), (512, 256), ('fsdp', None)),
    (('dense', 'kernel'), (512, 3 * 171), ('fsdp', None)),  # the largest that divides
    (('dense', 'bias'), (512,), ()),  # small
    (('dense', 'kernel'), (511, 513), ()),  # nothing divides
    # A stacked run is never split along its stack, although that is the largest axis.
    (('dec_00_8x512', 'kernel'), (512, 16, 64), (None, None, 'fsdp')),
    (('dec_00_8x512', 'c1', 'kernel'), (512, 16, 64), (None, None, 'fsdp')),
    (('dec_00_8x512', 'kernel'), (512, 129), ()),
    (('dec_00_8x4', 'kernel'), (512, 16, 64), ('fsdp', None, None)),  # of another run
  ],
  ids=str,
)
def test_state_is_split_by_one_rule(path, shape, spec):
  mesh = sharding.make_mesh(4, 2)
  tree = jax.ShapeDtypeStruct(shape, jnp.float32)
  for name in reversed(path):
    tree = {name: tree}
  (placement,) = jax.tree.leaves(sharding.state_shardings(tree, mesh))
  assert placement.spec == PartitionSpec(*spec)
  (whole,) = jax.tree.leaves(sharding.state_shardings(tree, sharding.make_mesh(8, 1)))
  assert whole.spec == PartitionSpec()
