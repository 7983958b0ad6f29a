"""Optimizers and schedules against values worked by hand."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.training import optimizers

SECTION = dict(name='adamax', schedule='cosine', learning_rate=0.1, warmup_steps=4, clip_norm=0.0)
SECTION |= dict(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, weight_decay_exclude=())
SECTION |= dict(decay_start=10, decay_steps=20, min_learning_rate=0.02, decay_rate=0.5)


def create(num_steps=100, **fields):
  return optimizers.create(ml_collections.ConfigDict(SECTION | fields), num_steps)


def rates(steps, **fields):
  return np.asarray(jax.jit(create(**fields)[1])(jnp.asarray(steps)))


def test_cosine():
  """Warms up to 0.1, stays until 10, is half of the way at 20, and at the minimum from 30 on."""
  expected = [0, 0.05, 0.1, 0.1, 0.1, 0.06, 0.02, 0.02]
  np.testing.assert_allclose(rates([0, 2, 4, 9, 10, 20, 30, 99]), expected, rtol=1e-5)


def test_cosine_to_the_end_of_the_training():
  actual = rates([10, 55, 100], decay_steps=0, num_steps=100)
  np.testing.assert_allclose(actual, [0.1, 0.06, 0.02], rtol=1e-5)


def test_the_torch_form_rises_again():
  actual = rates([10, 20, 30], schedule='cosine_torch')
  assert actual[1] == pytest.approx(0.02, rel=1e-5)  # half of the way too early
  assert actual[0] > 0.05 and actual[2] > 0.05


def test_noam():
  actual = rates([0, 2, 4, 16], schedule='noam')
  np.testing.assert_allclose(actual, [0, 0.05, 0.1, 0.05], rtol=1e-5)


def test_exponential():
  """Halves every 20 steps from 10 on, never above the start nor below the end."""
  actual = rates([0, 10, 30, 50, 1000], schedule='exponential', decay_rate=0.5)
  np.testing.assert_allclose(actual, [0.1, 0.1, 0.05, 0.025, 0.02], rtol=1e-5)


@pytest.mark.parametrize('schedule', ['constant', 'cosine'])
def test_no_warm_up(schedule):
  assert rates(0, schedule=schedule, warmup_steps=0) == pytest.approx(0.1)


def test_adamax_adds_epsilon_inside_the_maximum():
  tx, _ = create(eps=0.5)
  params = {'kernel': jnp.zeros(2)}
  state = tx.init(params)
  updates, state = tx.update({'kernel': jnp.array([2.0, 0.0])}, state, params)
  np.testing.assert_allclose(updates['kernel'], [2 / 2.5, 0], rtol=1e-6)
  updates, _ = tx.update({'kernel': jnp.array([1.0, 0.0])}, state, params)
  mean = (0.9 * 0.2 + 0.1) / (1 - 0.9**2)
  np.testing.assert_allclose(updates['kernel'][0], mean / (2.5 * 0.999), rtol=1e-5)


@pytest.mark.parametrize('name', ['adamw', 'adamax', 'radam'])
def test_decay_spares_what_is_excluded_by_name(name):
  tx, _ = create(name=name, weight_decay=0.25, weight_decay_exclude=('bias', 'z_projection'))
  leaf = jnp.full(3, 2.0)
  params = {
    'net': {'kernel': leaf, 'bias': leaf, 'scale_bias': leaf},
    'z_projection': {'kernel': leaf},
  }
  updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
  first_updates = {**updates['net'], 'z': updates['z_projection']['kernel']}
  flat = {name: float(update[0]) for name, update in first_updates.items()}
  # Names are compared whole: `scale_bias` is not `bias`.
  assert flat == {'kernel': 0.5, 'bias': 0, 'scale_bias': 0.5, 'z': 0}


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'name': 'sgd'},
      "config.optimizer.name='sgd' must be one of 'adam', 'adamw', 'adamax', 'adamax_l2'",
    ),
    ({'schedule': 'step'}, "config.optimizer.schedule='step' must be one of 'constant', 'cosine'"),
    ({'weight_decay': -1.0}, 'config.optimizer.weight_decay=-1.0 must not be negative'),
    ({'name': 'muon', 'muon_rms': -1.0}, 'config.optimizer.muon_rms=-1.0 must not be negative'),
    ({'decay_steps': -1}, 'config.optimizer.decay_steps=-1 must not be negative'),
    ({'decay_rate': 0.0}, 'config.optimizer.decay_rate=0.0 must be at most 1 and above 0'),
    ({'b2': 1.0}, 'config.optimizer.b2=1.0 must be at least 0 and below 1'),
    ({'eps': float('nan')}, 'config.optimizer.eps=nan must be a number'),
    ({'momentum': 0.9}, 'config.optimizer has momentum, but may have b1, b2'),
    ({'warmup_steps': 11}, 'config.optimizer.warmup_steps=11 must not exceed config.optimizer.dec'),
  ],
  ids=str,
)
def test_values_are_checked(fields, message):
  with pytest.raises(UserError) as caught:
    create(**fields)
  assert message in str(caught.value)


@pytest.mark.parametrize('name', ['conv', 'deconv'])
@pytest.mark.parametrize('shape', [(6, 4), (3, 4, 6), (2, 2, 3, 5), (2, 2, 2, 3, 5)], ids=str)
def test_muon_moves_matrices_by_orthogonal_updates(shape, name):
  """Computes singular values of an update: they are close, for each stacked matrix on its own."""
  tx, _ = create(name='muon', muon_rms=1.5, muon_iterations=10, muon_transposed=('deconv',))
  is_stacked = len(shape) % 2 == 1

  def matrices(x):
    x = x if is_stacked else x[None]
    if name == 'deconv':
      return jnp.moveaxis(x, -2, 1).reshape(len(x), x.shape[-2], -1)
    return x.reshape(len(x), -1, x.shape[-1])

  # Values differ much in size, within a matrix and between stacked matrices.
  kernel = jax.random.normal(jax.random.key(0), shape) * 10.0 ** -jnp.arange(shape[-1])
  if is_stacked:
    kernel *= 10.0 ** -jnp.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
  params = {name: {'kernel': kernel, 'bias': jnp.array([[4.0, -0.5]] * 3)}}
  updates = tx.update(params, tx.init(params), params)[0][name]
  nadam = 1 + 0.9 * (1 - 0.9) / (1 - 0.9**2)  # the first update of Adam, looking ahead
  np.testing.assert_allclose(updates['bias'], [[nadam, -nadam]] * 3, rtol=1e-5)
  update = matrices(updates['kernel'])
  values = np.linalg.svd(update, compute_uv=False)
  expected = 1.5 * max(update.shape[1:]) ** 0.5
  assert np.all(values > 0.6 * expected) and np.all(values < 1.3 * expected)
  assert np.all(np.sum(update * matrices(kernel), axis=(1, 2)) > 0)


@pytest.mark.parametrize('schedule', ['constant', 'noam', 'exponential', 'warm_exponential'])
def test_a_warm_up_may_be_long_where_no_decay_follows_it(schedule):
  create(schedule=schedule, warmup_steps=11)


@pytest.mark.parametrize('schedule', optimizers.SCHEDULES)
@pytest.mark.parametrize('name', optimizers.OPTIMIZERS)
def test_every_pair_has_defaults(name, schedule):
  """Combines any optimizer with any schedule."""
  tx, rate = optimizers.create({'name': name, 'schedule': schedule}, 100)
  params = {'kernel': jnp.eye(4)}
  updates, _ = tx.update(params, tx.init(params), params)
  assert np.isfinite(rate(50)) and np.isfinite(updates['kernel']).all()
