"""Work directories: the stored config, and its changes when a run goes on."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import demo_mnist
from hvae_tpu import models
from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.modes import reset
from hvae_tpu.runs import workdir
from hvae_tpu.runs.checkpoints import Checkpoints
from hvae_tpu.training import init_from
from hvae_tpu.training.state import TrainState

CHANGEABLE = models.changeable_fields('vdvae')


def config(**changes):
  """The debug config with dotted keys changed; '__' stands for a dot."""
  changed = demo_mnist.get_config('vdvae,debug')
  changed.update_from_flattened_dict({k.replace('__', '.'): v for k, v in changes.items()})
  return changed


def test_configs_survive_json(tmp_path):
  original = ml_collections.ConfigDict(
    {'a': (1, (2.5, 'x'), ()), 'b': None, 'c': {'d': float('inf'), 'e': True}}
  )
  workdir.store_config(tmp_path / 'new', original)
  restored = workdir.from_json(workdir.stored_config(tmp_path / 'new'))
  assert restored == original
  assert isinstance(restored.a, tuple) and isinstance(restored.a[1], tuple)
  assert [path.name for path in (tmp_path / 'new').iterdir()] == ['config.json']
  workdir.store_config(tmp_path / 'new', config())
  restored = workdir.from_json(workdir.stored_config(tmp_path / 'new'))
  assert restored.to_dict() == config().to_dict()


def test_configs_that_are_not_there_or_cannot_be_read(tmp_path):
  assert workdir.stored_config(tmp_path) is None
  (tmp_path / 'config.json').write_text('{"a": ')
  with pytest.raises(UserError, match='config.json cannot be read .*; restore or delete it'):
    workdir.stored_config(tmp_path)


@pytest.mark.parametrize(
  'changes',
  [
    {'model__width': 16},
    {'model__likelihood': 'dmol_exact'},
    {'data__train_transforms': ('flip',)},
    {'data__name': 'other'},
    {'seed': 1},
    {'optimizer__name': 'other'},
  ],
  ids=str,
)
def test_binding_keys(tmp_path, capsys, changes):
  stored = workdir.to_json(config())
  ((key, value),) = changes.items()
  with pytest.raises(UserError) as caught:
    workdir.compare_configs(tmp_path, stored, config(**changes), CHANGEABLE)
  message = str(caught.value)
  assert f'config.{key.replace("__", ".")}: ' in message and '--workdir' in message
  allowed = config(**changes, train__allow_config_change=True)
  workdir.compare_configs(tmp_path, stored, allowed, CHANGEABLE)
  (line,) = capsys.readouterr().out.splitlines()
  assert key.replace('__', '.') in line


@pytest.mark.parametrize(
  'changes',
  [
    {'train__num_steps': 99},
    {'optimizer__learning_rate': 0.5},
    {'data__root': '/elsewhere'},
    {'data__num_workers': 2},
    {'model__kl_weight': 0.5},
    {'model__unroll': '1'},
    {'model__remat': 'blocks'},
    {'mesh__fsdp': 2},
    {'evals__weights': 'both'},
  ],
  ids=str,
)
def test_changeable_keys(tmp_path, capsys, changes):
  stored = workdir.to_json(config())
  workdir.compare_configs(tmp_path, stored, config(**changes), CHANGEABLE)
  ((key, value),) = changes.items()
  (line,) = capsys.readouterr().out.splitlines()
  assert line.startswith(f'changed since the last start: config.{key.replace("__", ".")}: ')
  assert line.endswith(f'-> {value}')


def test_the_same_config_is_not_a_change(tmp_path, capsys):
  workdir.compare_configs(tmp_path, workdir.to_json(config()), config(), CHANGEABLE)
  assert capsys.readouterr().out == ''


def state(value: float, **params) -> TrainState:
  fill = lambda shape: jnp.full(shape, value)
  params = jax.tree.map(fill, params, is_leaf=lambda leaf: isinstance(leaf, tuple))
  zero = jnp.int32(0)
  return TrainState(zero, zero, zero, params, params, {'mean': fill((2,))}, {'mu': fill((1,))})


def test_weights_of_another_run(tmp_path, capsys):
  mesh = sharding.make_mesh(8, 1)
  store = Checkpoints(tmp_path)
  store.save(3, state(5.0, same=(3,), shape=(2,), extra=(4,)), {'metrics': {}})
  store.close()
  place = lambda tree: jax.device_put(tree, sharding.replicated(mesh))
  fresh = place(state(1.0, same=(3,), shape=(6,), new=(1,)))
  started = init_from.take(fresh, str(tmp_path), mesh)
  for params in (started.params, started.ema_params):
    assert {k: float(v[0]) for k, v in params.items()} == {'same': 5, 'shape': 1, 'new': 1}
  np.testing.assert_array_equal(started.model_state['mean'], [5, 5])
  assert started.opt_state['mu'][0] == 1 and started.step == 0
  text = capsys.readouterr().out
  assert 'taken: params/same [3]' in text
  assert 'missing: params/new is not there' in text
  assert 'missing: params/shape is float32[2] there, float32[6] here' in text
  assert 'extra: params/extra [4] is not used' in text
  assert f'took 1 of 3 parameters from {tmp_path} step 3' in text
  with pytest.raises(UserError, match='config.train.init_from=.* none of the 3 parameters'):
    init_from.take(place(state(1.0, other=(1,))), str(tmp_path), mesh)


def test_reset_refuses_a_folder_that_is_not_ours(tmp_path):
  (tmp_path / 'train').mkdir()
  with pytest.raises(UserError, match='not a work directory of this program; nothing is deleted'):
    reset.run(config(reset__yes=True), tmp_path, 'latest')
  assert (tmp_path / 'train').exists()


def test_reset_lists_and_deletes_what_is_ours(tmp_path, capsys):
  run = tmp_path / 'run'
  for name in ('checkpoints/1', 'train', 'notes'):
    (run / name).mkdir(parents=True)
  (run / 'train' / 'log').write_text('x')
  workdir.store_config(run, config())
  assert reset.run(config(), run, 'latest') == 0
  shown = capsys.readouterr().out
  assert f'would delete {run / "train"} (1 files' in shown and 'nothing was deleted' in shown
  assert (run / 'train' / 'log').exists() and (run / 'config.json').exists()
  assert reset.run(config(reset__yes=True), run, 'latest') == 0
  assert [path.name for path in run.iterdir()] == ['notes']
  assert 'kept other files: notes' in capsys.readouterr().out
  (run / 'notes').rmdir()
  workdir.store_config(run, config())
  reset.run(config(reset__yes=True), run, 'latest')
  assert not run.exists()
