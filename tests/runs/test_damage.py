"""Checkpoints whose files were changed behind our back: noticed, named, and the one before used."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvae_tpu.devices import sharding
from hvae_tpu.errors import TransientError
from hvae_tpu.runs.checkpoints import Checkpoints, DamagedCheckpoint
from hvae_tpu.storage import checksums


def tree(step: int):
  rng = np.random.default_rng(step)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return {'a': draw(40, 50), 'b': {'c': draw(64, 8, 3), 'd': jnp.int32(step)}}


@pytest.fixture(scope='module')
def abstract():
  place = sharding.replicated(sharding.make_mesh(1, 1, jax.devices()[:1]))
  return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), tree(0))


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  folder = tmp_path_factory.mktemp('saved')
  store = Checkpoints(folder, keep_latest=9)
  for step in (1, 2):
    store.save(step, tree(step), {'config': {}, 'card': {}, 'metrics': {}})
    store.wait()
  store.close()
  return folder


@pytest.fixture
def copy(saved, tmp_path):
  shutil.copytree(saved, tmp_path / 'run')
  return tmp_path / 'run'


def data_files(run: pathlib.Path, step: int) -> list[pathlib.Path]:
  """Files that hold numbers."""
  return sorted(path for path in (run / 'checkpoints' / str(step) / 'state').rglob('d/*'))


def restored(run: pathlib.Path, abstract):
  """Restores as a resume does. Returns the step and the state."""
  store = Checkpoints(run)
  try:
    return store.restore_undamaged(store.steps, lambda step: store.restore(step, abstract))
  finally:
    store.close()


def assert_is(state, step: int):
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), state, tree(step))


def test_whole_checkpoints_are_as_saved(copy, abstract, capsys):
  step, state = restored(copy, abstract)
  assert step == 2 and capsys.readouterr().out == ''
  assert_is(state, 2)


def test_one_flipped_byte_anywhere_is_noticed(copy, abstract, capsys):
  """Damages every data file, at places from the first to the last byte, one at a time."""
  noticed = 0
  for path in data_files(copy, 2):
    whole = path.read_bytes()
    for place in {0, len(whole) // 3, len(whole) // 2, 2 * len(whole) // 3, len(whole) - 1}:
      changed = bytearray(whole)
      changed[place] ^= 1
      path.write_bytes(changed)
      step, state = restored(copy, abstract)
      # A byte that no array is made of may be changed without loss: then all numbers are right.
      assert_is(state, step)
      if step == 1:
        noticed += 1
        message = capsys.readouterr().out
        assert str(copy / 'checkpoints' / '2') in message and 'is damaged' in message
    path.write_bytes(whole)
  assert noticed >= 3


@pytest.mark.parametrize('damage', ['truncated', 'deleted', 'renamed', 'no meta', 'broken meta'])
def test_damaged_files_fall_back(copy, abstract, capsys, damage):
  largest = max(data_files(copy, 2), key=lambda path: path.stat().st_size)
  meta = copy / 'checkpoints' / '2' / 'meta' / 'metadata'
  if damage == 'truncated':
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
  elif damage == 'deleted':
    largest.unlink()
  elif damage == 'renamed':
    largest.rename(largest.with_name('other'))
  elif damage == 'no meta':
    meta.unlink()
  else:
    meta.write_text(meta.read_text()[:20])
  step, state = restored(copy, abstract)
  message = capsys.readouterr().out
  assert step == 1 and 'using the one before' in message and 'Traceback' not in message
  assert_is(state, 1)


def test_nothing_is_used_if_all_are_damaged(copy, abstract):
  for step in (1, 2):
    for path in data_files(copy, step):
      path.write_bytes(b'')
  with pytest.raises(DamagedCheckpoint, match=r'checkpoints/1 is damaged'):
    restored(copy, abstract)


def test_a_damaged_one_is_set_aside_and_its_step_saved_again(copy, abstract):
  store = Checkpoints(copy, keep_latest=9)
  assert store.set_aside(2).name == 'damaged-checkpoint-2-1'
  assert store.steps == [1]
  store.save(2, tree(3), {'config': {}, 'card': {}, 'metrics': {}})
  store.wait()
  assert_is(store.restore(2, abstract), 3)
  assert store.set_aside(2).name == 'damaged-checkpoint-2-2'
  store.close()


def test_full_memory_is_not_damage(copy, abstract, monkeypatch):
  store = Checkpoints(copy)

  def fail(*args, **kwargs):
    raise ValueError('RESOURCE_EXHAUSTED: out of memory')

  monkeypatch.setattr(store._manager, 'restore', fail)
  with pytest.raises(TransientError, match='could not be read'):
    store.restore_undamaged(store.steps, lambda step: store.restore(step, abstract))
  store.close()


class UnavailableError(Exception):
  """An error that TensorFlow raises for a bucket's answer; the message may lack the code."""


@pytest.mark.parametrize(
  'error', [OSError(5, 'Input/output error'), TimeoutError(), UnavailableError('503')]
)
def test_storage_that_does_not_answer_is_not_damage(copy, abstract, monkeypatch, error):
  """The metadata as well: an older checkpoint would be taken, and the newer one overwritten."""
  store = Checkpoints(copy)

  def fail(*args, **kwargs):
    raise error

  with monkeypatch.context() as patch:
    patch.setattr(type(store.directory), 'read_text', fail)
    with pytest.raises(TransientError, match='could not be read'):
      store.restore_undamaged(store.steps, lambda step: store.restore(step, abstract))
  assert_is(store.restore(2, abstract), 2)
  store.close()


def test_best_is_kept_beside_the_newest(tmp_path):
  store = Checkpoints(tmp_path, keep_latest=1, best_metric='elbo/bpd')
  for step, value in enumerate([3.0, 1.0, 2.0, 4.0]):
    store.save(step, tree(step), {'config': {}, 'card': {}, 'metrics': {'elbo/bpd': value}})
    store.wait()
  assert store.steps == [1, 3]
  assert store.resolve('best', 'elbo/bpd') == 1 and store.resolve('latest') == 3
  store.close()


def test_checksums_do_not_depend_on_the_sharding():
  mesh = sharding.make_mesh(2, 4)
  array = np.random.default_rng(0).normal(size=(16, 12)).astype(np.float32)
  spread = jax.device_put(array, jax.sharding.NamedSharding(mesh, jax.P('data', 'fsdp')))
  whole = checksums.checksums({'x': jnp.asarray(array)})
  assert checksums.checksums({'x': spread}) == whole
  swapped = array.copy()
  swapped[0, 0], swapped[3, 5] = array[3, 5], array[0, 0]
  assert checksums.differing({'x': jnp.asarray(swapped)}, whole) == ['x']


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int32', 'uint8', 'bool', 'float16'])
def test_checksums_by_hand(dtype):
  array = jnp.arange(6).reshape(2, 3).astype(dtype)
  raw = np.asarray(array)
  bits = raw.astype(np.uint32) if dtype == 'bool' else raw.view(f'uint{8 * raw.itemsize}')
  bits = bits.astype(np.uint64).ravel()
  expected = [int(bits.sum() % 2**32), int((bits * np.arange(1, 7, dtype=np.uint64)).sum() % 2**32)]
  assert checksums.checksums({'x': array}) == {'x': expected}
