"""Checkpoints: retention, names, and refusal of arrays that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.runs.checkpoints import Checkpoints
from hvae_tpu.training.state import TrainState


def make_state(mesh=None) -> TrainState:
  """Numbers that differ in every array; placed by the rule of `sharding`."""
  arange = lambda start, *shape: (
    start + jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
  )
  state = TrainState(
    step=jnp.int32(4),
    skipped=jnp.int32(1),
    skipped_in_row=jnp.int32(0),
    params={'a': {'kernel': arange(0, 256, 512)}, 'b': arange(7, 3)},
    ema_params={'a': {'kernel': arange(1, 256, 512)}, 'b': arange(8, 3)},
    model_state={'mean': arange(9, 5)},
    opt_state=({'count': jnp.int32(3)}, None),
  )
  return state if mesh is None else jax.device_put(state, sharding.state_shardings(state, mesh))


def abstract(state, mesh=None):
  mesh = mesh or sharding.make_mesh(8, 1)
  return jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
    state,
    sharding.state_shardings(state, mesh),
  )


def assert_same(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y, strict=True), a, b)


def open_saved(directory, *saves, **options) -> Checkpoints:
  """Checkpoints of the given (step, metrics), opened as a later process would."""
  store = Checkpoints(directory, **options)
  for step, metrics in saves:
    store.save(step, {'x': jnp.full(3, step, jnp.float32)}, {'metrics': metrics, 'card': {}})
    store.wait()
  store.close()
  return Checkpoints(directory, read_only=True)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """The directory of a checkpoint of `make_state`, made on 4 x 2 devices; step 4."""
  directory = tmp_path_factory.mktemp('run')
  store = Checkpoints(directory)
  store.save(4, make_state(sharding.make_mesh(4, 2)), {'config': {'seed': 1}, 'metrics': {}})
  store.close()
  return directory


@pytest.fixture
def store(saved):
  store = Checkpoints(saved, read_only=True)
  yield store
  store.close()


@pytest.mark.parametrize(
  ('options', 'steps'),
  [
    (dict(keep_latest=1), [6]),
    (dict(keep_latest=2), [5, 6]),
    (dict(keep_latest=1, keep_every=2), [2, 4, 6]),
  ],
  ids=str,
)
def test_retention(tmp_path, options, steps):
  (tmp_path / 'checkpoints').mkdir()
  (tmp_path / 'checkpoints' / 'notes.txt').write_text('notes')
  store = open_saved(tmp_path, *((step, {}) for step in range(1, 7)), **options)
  assert store.steps == steps
  assert (tmp_path / 'checkpoints' / 'notes.txt').read_text() == 'notes'


def test_names_of_checkpoints(tmp_path):
  saves = [(10, {'elbo/bpd': 3.0}), (20, {'elbo/bpd': 2.5}), (30, {'elbo/bpd': 2.7}), (40, {})]
  store = open_saved(tmp_path, *saves, keep_latest=9)
  assert store.resolve('latest') == 40
  assert store.resolve('best', 'elbo/bpd') == 20
  assert store.resolve('30') == 30
  with pytest.raises(UserError, match="no checkpoint .* has a result 'iwae'.*--checkpoint=latest"):
    store.resolve('best', 'iwae')
  for wrong in ('25', 'newest', '-10'):
    with pytest.raises(UserError, match=f'--checkpoint={wrong} must be .* 10, 20, 30, 40'):
      store.resolve(wrong)


def test_nothing_there(tmp_path):
  with pytest.raises(UserError, match='holds no checkpoint; train first'):
    Checkpoints(tmp_path).resolve('latest')


def test_saving_a_step_again_changes_nothing(tmp_path):
  store = Checkpoints(tmp_path)
  store.save(1, {'x': jnp.zeros(3)}, {'metrics': {'a': 1.0}})
  store.wait()
  store.save(1, {'x': jnp.ones(3)}, {'metrics': {'a': 2.0}})
  store.wait()
  assert store.meta(1)['metrics'] == {'a': 1.0}
  store.close()


def test_meta(store):
  assert store.meta(4)['config'] == {'seed': 1} and store.meta(4)['format'] == 1


@pytest.mark.parametrize('sizes', [(8, 1), (4, 2), (2, 4)])
def test_restored_on_another_mesh(store, sizes):
  mesh = sharding.make_mesh(*sizes)
  restored = store.restore(4, abstract(make_state(), mesh))
  assert_same(jax.device_get(restored), jax.device_get(make_state()))
  kernel = restored.params['a']['kernel']
  assert kernel.addressable_shards[0].data.shape == (256, 512 // sizes[1])


def test_restored_on_fewer_devices(store):
  mesh = sharding.make_mesh(1, 1, jax.devices()[:1])
  restored = store.restore(4, abstract(make_state(), mesh))
  assert_same(jax.device_get(restored), jax.device_get(make_state()))


@pytest.mark.parametrize(
  'fields', [('ema_params',), ('params',), ('ema_params', 'model_state'), ('params', 'ema_params')]
)
def test_part_of_a_state(store, fields):
  expected = {field: getattr(make_state(), field) for field in fields}
  restored = store.restore_part(4, abstract(expected))
  assert set(restored) == set(fields)
  assert_same(jax.device_get(restored), jax.device_get(expected))


def test_field_by_names(store):
  restored = store.restore_named(4, 'params', sharding.make_mesh(8, 1))
  assert set(restored) == {'a/kernel', 'b'}
  np.testing.assert_array_equal(restored['b'], [7, 8, 9])
  assert store.restore_named(4, 'nothing', sharding.make_mesh(8, 1)) == {}


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'c': jnp.zeros(2)}, 'params/c is missing'),
    ({'b': jnp.zeros(4)}, 'params/b is float32[3], expected float32[4]'),
    ({'b': jnp.zeros(3, jnp.bfloat16)}, 'params/b is float32[3], expected bfloat16[3]'),
  ],
  ids=['missing', 'shape', 'dtype'],
)
@pytest.mark.parametrize('part', [False, True], ids=['whole', 'part'])
def test_what_does_not_fit_is_named(store, change, message, part):
  params = make_state().params | change
  with pytest.raises(UserError) as caught:
    if part:
      store.restore_part(4, abstract({'params': params}))
    else:
      store.restore(4, abstract(make_state().replace(params=params)))
  assert message in str(caught.value)
  assert 'checkpoints/4 does not fit the config' in str(caught.value)


def test_stored_arrays_that_the_config_lacks_are_refused(store):
  """A whole state is the same state: nothing stored may be left behind in silence."""
  params = {'b': make_state().params['b']}
  with pytest.raises(UserError, match='params/a/kernel'):
    store.restore(4, abstract(make_state().replace(params=params)))


def test_read_only_writes_nothing(tmp_path):
  store = Checkpoints(tmp_path / 'run', read_only=True)
  assert store.steps == []
  store.close()
  assert not (tmp_path / 'run').exists()
