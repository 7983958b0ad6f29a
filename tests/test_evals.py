"""Evaluations against answers worked by hand, with a model that reports what it is given."""

import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from hvae_tpu import evals
from hvae_tpu.errors import UserError
from hvae_tpu.evals import bernoulli_baseline, elbo, pictures

RNG = jax.random.key(0)


class Reporter:
  """`neg_elbo` is the first pixel times `params`; three levels of one constant picture each."""

  level_names = ('res1/group00', 'res2/group01', 'res2/group02')

  def loss(self, params, state, batch, *, rng, step, train):
    assert not train
    x = batch['image'][:, 0, 0, 0].astype(jnp.float32)
    # A padding row holds 255: not finite here.
    x = jnp.where(x == 255, jnp.nan, x) * params
    metrics = {'neg_elbo': x, 'kl_per_level': jnp.stack([x, 2 * x], 1), 'active': x.sum()}
    return x.mean(), (state, metrics)

  def sample(self, params, state, rng, num, temperature):
    shade = (100 * temperature.sum() / 3).astype(jnp.uint8)
    return jnp.full((num, 2, 2, 1), shade)

  def encode(self, params, state, batch, rng):
    return batch['image']

  def decode(self, params, state, latents, rng, temperature, given):
    return jnp.full_like(latents, 50 * given.sum())


def batches(*columns, masks=None):
  """Batches of 2x2 pictures, each filled with one of the given numbers."""
  masks = masks or [[True] * len(column) for column in columns]

  def read(role=None):
    for column, mask in zip(columns, masks, strict=True):
      shades = np.array(column, np.uint8)[:, None, None, None]
      image = np.broadcast_to(shades, (len(column), 2, 2, 1))
      yield {'image': jnp.asarray(image), 'mask': jnp.asarray(mask)}

  return read


def test_averages_count_every_example_once():
  """Batches of 4 and of 1 real example and 3 of padding, which is not finite."""
  read = batches([1, 2, 3, 4], [10, 255, 255, 255], masks=[[True] * 4, [True] + [False] * 3])
  found = elbo.make(Reporter(), read)(jnp.float32(1), {}, 0, RNG)
  assert found['num_examples'] == 5 and found['neg_elbo'] == 4
  np.testing.assert_array_equal(found['kl_per_level'], [4, 8])
  assert set(found) == {'neg_elbo', 'kl_per_level', 'num_examples'}


def test_bernoulli_baseline():
  """Three of four training pictures are white; each value is counted once more: p = 4 / 6."""
  views = {'train': batches([255, 255, 255, 0]), None: batches([255, 0, 0], masks=[[1, 1, 0]])}
  run = bernoulli_baseline.make(Reporter(), lambda role=None: views[role]())
  expected = -4 * (np.log(4 / 6) + np.log(2 / 6)) / 2  # four pixels, two examples
  assert run(None, {}, 0, RNG)['nll'] == pytest.approx(expected, rel=1e-6)


def test_pictures():
  draw = pictures.make(
    Reporter(),
    batches([7, 8, 9, 10]),
    num=3,
    temperatures=(1.0, 0.5),
    temperature_per_level=(0.0, 0.0, 0.9),
    num_partial=2,
  )
  found = draw(None, {}, 0, RNG)
  rows = lambda name: found[name].reshape(-1, 2, 6, 1)[:, 0, ::2, 0].tolist()
  samples = [[100] * 3, [50] * 3, [30] * 3]
  assert rows('samples') == samples
  assert rows('reconstructions') == [[7, 8, 9], [150] * 3]
  assert rows('partial') == [[7, 8, 9], [50] * 3, [100] * 3, *samples]  # one level, then two
  assert found['partial'].dtype == np.uint8 and found['partial'].shape == (12, 6, 1)


def test_one_temperature_per_level():
  with pytest.raises(UserError, match='temperature_per_level has 2 numbers; the model has 3'):
    pictures.make(Reporter(), batches([1]), temperature_per_level=(1.0, 1.0))


def test_a_row_has_no_more_pictures_than_a_batch():
  with pytest.raises(UserError, match=r'9 images a row \(num\) are more than .*batch_size=8'):
    pictures.check({'num': 9}, batch_size=8)


def section(weights: str) -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict({'weights': weights, 'elbo': {'every': 3}})


@pytest.mark.parametrize(
  ('weights', 'expected'),
  [
    ('ema', {'neg_elbo': 20}),
    ('raw', {'neg_elbo': 2}),
    ('both', {'neg_elbo': 20, 'neg_elbo_raw': 2}),
  ],
)
def test_weights(weights, expected):
  state = types.SimpleNamespace(
    step=0, params=jnp.float32(1), ema_params=jnp.float32(10), model_state={}
  )
  run = evals.create('elbo', section(weights), Reporter(), batches([1, 3]), seed=0)
  found = run(state)
  assert {k: v for k, v in found.items() if k.startswith('neg_elbo')} == expected


@pytest.mark.parametrize(
  ('name', 'weights', 'model', 'message'),
  [
    ('fid', 'ema', Reporter(), "evaluation 'fid' must be one of"),
    ('elbo', 'best', Reporter(), "config.evals.weights='best' must be one of ema, raw, both"),
    ('pictures', 'ema', object(), r"evaluation 'pictures' needs sample\(\), which object lacks"),
  ],
)
def test_refused(name, weights, model, message):
  with pytest.raises(UserError, match=message):
    evals.create(name, section(weights), model, batches([1]), seed=0)
