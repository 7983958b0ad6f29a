"""The train step: applied or skipped whole, resumed exactly, the same on any mesh."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.nn import rows
from hvae_tpu.runs.checkpoints import Checkpoints
from hvae_tpu.training import optimizers
from hvae_tpu.training.metrics_log import summarize, too_many_skipped
from hvae_tpu.training.state import abstract_state, create_state, eval_params
from hvae_tpu.training.step import make_train_step, trace_step
from tests.support import tiny
from tests.support.toy_model import Toy

OPTIMIZER = dict(name='adamw', schedule='constant', learning_rate=0.1, warmup_steps=2)
OPTIMIZER |= dict(b1=0.9, b2=0.9, eps=1e-8, weight_decay=0.01, clip_norm=1.0)


def optimizer(**fields):
  return optimizers.create(ml_collections.ConfigDict(OPTIMIZER | fields), num_steps=100)


def toy_batch(index: int, mesh, value: int | None = None):
  image = np.random.default_rng(index).integers(0, 200, (8, 4)).astype(np.uint8)
  return sharding.put({'image': image if value is None else np.full_like(image, value)}, mesh)


class Trainer:
  """A toy run on one device; `step` donates the state."""

  def __init__(self, mesh=None, model=None, **options):
    self.mesh = mesh or sharding.make_mesh(1, 1, jax.devices()[:1])
    self.model = model or Toy()
    self.tx, rate = optimizer()
    options = dict(seed=3, ema_decay=0.9, skip_threshold=1e4) | options
    self.body = make_train_step(self.model, self.tx, rate, **options)
    self.ema = options['ema_decay'] is not None
    self.compiled = None

  def fresh(self, batch=None):
    batch = toy_batch(0, self.mesh) if batch is None else batch
    return create_state(self.model, self.tx, batch, self.mesh, self.ema, seed=5)

  def abstract(self):
    return abstract_state(self.model, self.tx, toy_batch(0, self.mesh), self.mesh, self.ema)

  def step(self, state, batch):
    if self.compiled is None:
      self.compiled = trace_step(self.body, state, batch).lower().compile()
    return self.compiled(state, batch)

  def run(self, state, start: int, stop: int):
    for i in range(start, stop):
      state, _ = self.step(state, toy_batch(i, self.mesh))
    return state


def assert_same(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y, strict=True), a, b)


@pytest.fixture(scope='module')
def trainer():
  return Trainer()


def test_six_steps_are_four_saved_restored_and_two(trainer, tmp_path):
  straight = jax.device_get(trainer.run(trainer.fresh(), 0, 6))
  store = Checkpoints(tmp_path)
  store.save(4, trainer.run(trainer.fresh(), 0, 4), {'metrics': {}})
  store.wait()
  resumed = trainer.run(store.restore(4, trainer.abstract()), 4, 6)
  store.close()
  assert_same(jax.device_get(resumed), straight)
  assert int(straight.step) == 6
  other = jax.device_get(trainer.run(trainer.fresh(), 0, 5))
  assert np.any(other.params['w'] != straight.params['w'])


@pytest.mark.parametrize('value', [255, 254], ids=['nan', 'huge gradient'])
def test_a_bad_batch_moves_only_the_counters(trainer, value):
  before = jax.device_get(trainer.run(trainer.fresh(), 0, 3))
  state, metrics = trainer.step(
    trainer.run(trainer.fresh(), 0, 3), toy_batch(3, trainer.mesh, value)
  )
  after = jax.device_get(state)
  for field in ('params', 'ema_params', 'opt_state', 'model_state'):
    assert_same(getattr(after, field), getattr(before, field))
  assert (int(after.step), int(after.skipped), int(after.skipped_in_row)) == (4, 1, 1)
  assert not metrics['grad_norm'] < 1e4
  state, _ = trainer.step(state, toy_batch(4, trainer.mesh))
  assert (int(state.step), int(state.skipped), int(state.skipped_in_row)) == (5, 1, 0)
  assert np.any(state.params['w'] != before.params['w'])


def test_without_a_threshold_only_nan_is_dropped():
  trainer = Trainer(skip_threshold=float('inf'))
  state = trainer.run(trainer.fresh(), 0, 1)
  state, _ = trainer.step(state, toy_batch(1, trainer.mesh, 254))
  assert int(state.skipped) == 0
  state, _ = trainer.step(state, toy_batch(2, trainer.mesh, 255))
  assert int(state.skipped) == 1 and np.isfinite(state.params['w']).all()


@pytest.mark.parametrize(('advances', 'count'), [(False, 2), (True, 3)])
def test_count_of_the_optimizer_after_a_drop(advances, count):
  trainer = Trainer(skip_advances_step=advances)
  state = trainer.run(trainer.fresh(), 0, 2)
  moments = jax.device_get(optax.tree.get(state.opt_state, 'mu'))
  state, _ = trainer.step(state, toy_batch(2, trainer.mesh, 255))
  assert int(optax.tree.get(state.opt_state, 'count')) == count
  assert_same(jax.device_get(optax.tree.get(state.opt_state, 'mu')), moments)


@pytest.mark.parametrize(
  ('clock', 'times'), [('attempted', [0, 1, 2, 3]), ('applied', [0, 1, 1, 2])]
)
def test_clock_of_schedules(clock, times):
  trainer = Trainer(clock=clock)
  state, clocks, rates = trainer.fresh(), [], []
  for i in range(4):
    state, metrics = trainer.step(state, toy_batch(i, trainer.mesh, 255 if i == 1 else None))
    clocks.append(int(metrics['clock']))
    rates.append(float(metrics['learning_rate']))
  assert clocks == times
  # Warm-up over two steps: nothing in the first update, half in the second.
  np.testing.assert_allclose(rates, [0.1 * min(t / 2, 1) for t in times], rtol=1e-6)


def test_average_is_taken_in_float32(trainer):
  state, expected, rate = trainer.fresh(), None, np.float32(0.9)
  expected = np.asarray(state.params['w'])
  for i in range(3):
    state, _ = trainer.step(state, toy_batch(i, trainer.mesh))
    expected = expected * rate + np.asarray(state.params['w']) * (np.float32(1) - rate)
    # One fused multiply-add rounds once instead of twice.
    np.testing.assert_allclose(state.ema_params['w'], expected, rtol=3e-7)
  assert eval_params(state) is state.ema_params
  assert eval_params(state, 'raw') is state.params


def test_without_average():
  trainer = Trainer(ema_decay=None)
  state = trainer.run(trainer.fresh(), 0, 2)
  assert state.ema_params is None and eval_params(state) is state.params


def test_first_update_has_rate_zero(trainer):
  before = jax.device_get(trainer.fresh())
  state, metrics = trainer.step(trainer.fresh(), toy_batch(0, trainer.mesh))
  assert metrics['learning_rate'] == 0
  assert_same(jax.device_get(state.params), before.params)
  assert np.any(optax.tree.get(state.opt_state, 'mu')['w'] != 0)


def test_clipping_and_decay():
  tx, rate = optimizer(b1=0.0, b2=0.0, eps=1.0, warmup_steps=0)
  params, grads = {'w': jnp.array([2.0, 0.0])}, {'w': jnp.array([3.0, 4.0])}
  updates, _ = tx.update(grads, tx.init(params), params)
  clipped = np.array([0.6, 0.8])  # a gradient of norm 5, clipped to norm 1
  expected = clipped / (clipped + 1) + 0.01 * np.array([2.0, 0.0])
  np.testing.assert_allclose(updates['w'], expected, rtol=1e-6)
  assert float(rate(0)) == np.float32(0.1)
  free, _ = optimizer(b1=0.0, b2=0.0, eps=1.0, clip_norm=0.0)
  updates, _ = free.update(grads, free.init(params), params)
  np.testing.assert_allclose(updates['w'], [0.75 + 0.02, 0.8], rtol=1e-6)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'name': 'sgd'}, "config.optimizer.name='sgd' must be one of"),
    ({'schedule': 'step'}, "config.optimizer.schedule='step' must be one of"),
    ({'clip_norm': -1.0}, 'config.optimizer.clip_norm=-1.0 must not be negative'),
  ],
  ids=str,
)
def test_optimizer_refuses(fields, message):
  with pytest.raises(UserError, match=message):
    optimizer(**fields)


def test_state_is_donated(trainer):
  state = trainer.fresh()
  trainer.step(state, toy_batch(0, trainer.mesh))
  with pytest.raises(RuntimeError, match='deleted'):
    np.asarray(state.params['w'])


def test_noise_depends_on_step_and_seed():
  losses = []
  for seed in (3, 3, 4):
    trainer = Trainer(seed=seed)
    state, first = trainer.step(trainer.fresh(), toy_batch(0, trainer.mesh))
    _, second = trainer.step(state, toy_batch(0, trainer.mesh))  # the rate was 0: the same weights
    losses.append((float(first['loss']), float(second['loss'])))
  assert losses[0] == losses[1] != losses[2]
  assert losses[0][0] != losses[0][1]


def test_too_many_drops_in_a_row():
  section = types.SimpleNamespace(max_skipped_in_row=3, skip_threshold=400.0)
  bad = {'skipped_in_row': np.array(3), 'loss': np.array(2.5), 'grad_norm': np.array(500.0)}
  bad['grad_norm_max'] = np.array(600.0)
  message = str(too_many_skipped(bad, section))
  for part in ('last 3 updates', '2.5', '500', '600', 'config.train.skip_threshold=400.0'):
    assert part in message
  assert 'config.train.max_skipped_in_row=0' in message
  assert not too_many_skipped(bad | {'skipped_in_row': np.array(2)}, section)
  section.max_skipped_in_row = 0
  assert not too_many_skipped(bad, section)


def test_summary_of_a_window():
  window = [
    {'loss': np.float32(v), 'grad_norm': np.float32(g), 'skipped': np.int32(i)}
    for i, (v, g) in enumerate([(1.0, 3.0), (np.nan, 9.0), (3.0, 6.0)])
  ]
  summary = summarize(window)
  assert (summary['loss'], summary['grad_norm'], summary['skipped']) == (2, 6, 2)
  assert summary['grad_norm_max'] == 9
  assert np.isnan(summarize(window[1:2])['loss'])


@pytest.fixture(scope='module')
def three_steps():
  """Losses and parameters after three steps of a tiny VDVAE, by mesh sizes."""
  # Fewer blocks than elsewhere: each mesh compiles anew.
  model = tiny.SYSTEMS['vdvae'].model
  model = dataclasses.replace(model, enc_blocks='8d8,1x1', dec_blocks='1x1,8m1')

  def run(data, fsdp, devices, spatial=1):
    mesh = sharding.make_mesh(data, fsdp, jax.devices()[:devices], spatial)
    batch = sharding.put({'image': tiny.images(model, 8)}, mesh)
    trainer = Trainer(mesh, model, skip_threshold=1e6)
    state, losses = trainer.fresh(batch), []
    for _ in range(3):
      state, metrics = trainer.step(state, batch)
      losses.append(float(metrics['loss']))
    return losses, jax.device_get(state.params)

  return run


@pytest.mark.slow
def test_meshes_agree(three_steps, monkeypatch):
  monkeypatch.setattr(sharding, 'MIN_SHARDED_SIZE', 64)  # the tiny model is split, too
  monkeypatch.setattr(rows, 'MIN_ROWS', 2)
  meshes = ((1, 1, 1), (8, 1, 8), (4, 2, 8), (1, 2, 8, 4))
  (one, params), *others = (three_steps(*m) for m in meshes)
  for losses, other in others:
    # Means over the batch in another order: a few float32 roundings of the loss, 2**-24 each.
    np.testing.assert_allclose(losses, one, rtol=2e-6)
    # Adam divides each gradient by its own size, so rounding errors of gradients that nearly
    # cancel count fully in the update, of size 0.05 + 0.1: compared by the mean.
    difference = jax.tree.map(lambda a, b: np.abs(a - b).mean(), other, params)
    assert max(jax.tree.leaves(difference)) < 1e-3


class Wide(Toy):
  """Toy with a run of blocks, large enough to be split."""

  def init(self, rng, batch):
    params, state = super().init(rng, batch)
    return params | {'enc_00_8x4': {'kernel': jnp.zeros((4, 128, 256))}}, state


def test_fsdp_splits_the_arguments_but_no_stack():
  sizes = []
  for fsdp in (1, 2):
    mesh = sharding.make_mesh(4 if fsdp == 2 else 8, fsdp)
    trainer = Trainer(mesh, Wide())
    state = trainer.fresh()
    kernel = state.params['enc_00_8x4']['kernel']
    assert kernel.addressable_shards[0].data.shape == (4, 128, 256 // fsdp)
    moment = optax.tree.get(state.opt_state, 'mu')['enc_00_8x4']['kernel']
    assert moment.sharding.spec == kernel.sharding.spec
    compiled = trace_step(trainer.body, state, toy_batch(0, mesh)).lower().compile()
    sizes.append(compiled.memory_analysis().argument_size_in_bytes)
    state, _ = compiled(state, toy_batch(0, mesh))
    assert state.params['enc_00_8x4']['kernel'].sharding.spec == kernel.sharding.spec
  # Parameters, average and two moments.
  assert sizes[0] - sizes[1] == 4 * kernel.nbytes // 2
