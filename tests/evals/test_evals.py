"""Evaluations against answers worked by hand, with a model that reports its inputs."""

import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from hvae_tpu import evals
from hvae_tpu.errors import UserError
from hvae_tpu.evals import (
  averaging,
  bernoulli_baseline,
  elbo,
  histograms,
  iwae,
  pictures,
  pruned,
  ssim,
)

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
  results = elbo.make(Reporter(), read)(jnp.float32(1), {}, 0, RNG)
  assert results['num_examples'] == 5 and results['neg_elbo'] == 4
  np.testing.assert_array_equal(results['kl_per_level'], [4, 8])
  assert set(results) == {'neg_elbo', 'kl_per_level', 'num_examples'}


def test_bernoulli_baseline():
  """Three of four training pictures are white; each value is counted once more: p = 4 / 6."""
  views = {'train': batches([255, 255, 255, 0]), None: batches([255, 0, 0], masks=[[1, 1, 0]])}
  run = bernoulli_baseline.make(Reporter(), lambda role=None: views[role]())
  expected = -4 * (np.log(4 / 6) + np.log(2 / 6)) / 2  # four pixels, two examples
  assert run(None, {}, 0, RNG)['nll'] == pytest.approx(expected, rel=1e-6)


def test_pictures():
  options = pictures.Options(
    num=3, temperatures=(1.0, 0.5), temperature_per_level=(0.0, 0.0, 0.9), num_partial=2
  )
  results = pictures.make(Reporter(), batches([7, 8, 9, 10]), options)(None, {}, 0, RNG)
  rows = lambda name: results[name].reshape(-1, 2, 6, 1)[:, 0, ::2, 0].tolist()
  samples = [[100] * 3, [50] * 3, [30] * 3]
  assert rows('samples') == samples
  assert rows('reconstructions') == [[7, 8, 9], [150] * 3]
  assert rows('partial') == [[7, 8, 9], [50] * 3, [100] * 3, *samples]  # one level, then two
  assert results['partial'].dtype == np.uint8 and results['partial'].shape == (12, 6, 1)


def test_one_temperature_per_level():
  with pytest.raises(UserError, match='temperature_per_level has 2 numbers; the model has 3'):
    pictures.make(Reporter(), batches([1]), pictures.Options(temperature_per_level=(1.0, 1.0)))


def test_a_row_has_no_more_pictures_than_a_batch():
  pictures.check(pictures.Options(num=8), batch_size=8)
  with pytest.raises(UserError, match=r'config.sample.num=9 images a row .*batch_size=8'):
    pictures.check(pictures.Options(num=9), 8, 'config.sample')


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
  results = run(state)
  assert {k: v for k, v in results.items() if k.startswith('neg_elbo')} == expected


@pytest.mark.parametrize(
  ('name', 'weights', 'model', 'message'),
  [
    ('fid', 'ema', Reporter(), "evaluation 'fid' must be one of"),
    ('elbo', 'best', Reporter(), "config.evals.weights='best' must be one of 'ema', 'raw', 'both'"),
    (
      'pictures',
      'ema',
      object(),
      r"evaluation 'pictures' needs sample\(\), encode\(\), decode\(\), level_names, which object "
      r'lacks; .* or turn it off with config.evals.pictures.every=0',
    ),
  ],
)
def test_refused(name, weights, model, message):
  with pytest.raises(UserError, match=message):
    evals.create(name, section(weights), model, batches([1]), seed=0)


def test_ssim_of_a_view():
  """Pictures decoded as they are, but for one on padding, whose pixels are lost."""
  model = types.SimpleNamespace(
    encode=lambda params, state, batch, rng: batch['image'],
    decode=lambda params, state, latents, rng: jnp.where(latents == 7, 0, latents),
  )
  read = batches([200, 200], [200, 7], masks=[[True, True], [True, False]])
  assert ssim.make(model, read)({}, {}, 0, RNG)['ssim'] == pytest.approx(1)
  assert ssim.make(model, batches([7]))({}, {}, 0, RNG)['ssim'] < 0.9


class Prunable:
  """Two levels of two variates on 1 and 4 positions; the KL of each is a multiple of the pixel."""

  level_sizes = jnp.array([2.0, 8.0])

  def kl_per_variate(self, params, state, batch, rng):
    x = batch['image'][:, 0, 0, 0].astype(jnp.float32)
    return x[:, None, None] * jnp.array([[1.0, 2.0], [6.0, 3.0]])

  def pruned(self, params, state, batch, rng, variates):
    kl = jnp.where(variates, self.kl_per_variate(params, state, batch, rng), 0)
    return {'kl': kl.sum((1, 2)), 'active_groups': jnp.ones(())}


def test_pruned_keeps_the_most_informative_per_position():
  """Per position the variates have 1, 2, 1.5 and 0.75: half of them are the second and third."""
  read = batches([1, 3, 255], masks=[[True, True, False]])
  results = pruned.make(Prunable(), read, pruned.Options(share=0.5))({}, {}, 0, RNG)
  np.testing.assert_array_equal(results['kept_variates'], [1, 1])
  assert results['kl'] == pytest.approx(2 * (2 + 6)) and results['num_examples'] == 2


class Weighted:
  """Log-weights are the logs of 1, 2, 3, ... in turn by the key's last number, plus the pixel."""

  num_dims = 4

  def log_weights(self, params, state, batch, rng):
    x = batch['image'][:, 0, 0, 0].astype(jnp.float32)
    x = jnp.where(x == 255, jnp.nan, x)
    return x - jnp.log(1 + jax.random.key_data(rng)[-1] % 3)


@pytest.mark.parametrize('chunk', [1, 4])
def test_importance_weights(chunk):
  """Against the sums of the weights themselves; the last picture is padding."""
  read = batches([1, 3], [2, 255], masks=[[True, True], [True, False]])
  options = iwae.Options(num_samples=8, chunk=chunk)
  results = iwae.make(Weighted(), read, options)({}, {}, 0, RNG)
  nll, elbos, effective = [], [], []
  for i, column in enumerate([[1, 3], [2]]):
    key = jax.random.fold_in(RNG, i)
    keys = [
      k for n in range(8 // chunk) for k in jax.random.split(jax.random.fold_in(key, n), chunk)
    ]
    offsets = np.array([-np.log(1 + int(jax.random.key_data(k)[-1]) % 3) for k in keys])
    for x in column:
      weights = np.exp(x + offsets)
      nll.append(-np.log(weights.mean()))
      elbos.append(-(x + offsets).mean())
      effective.append(weights.sum() ** 2 / (weights**2).sum())
  assert results['num_examples'] == 3
  assert results['nll'] == pytest.approx(np.mean(nll), rel=1e-5)
  assert results['bpd'] == pytest.approx(np.mean(nll) / (4 * np.log(2)), rel=1e-5)
  assert (
    results['neg_elbo'] == pytest.approx(np.mean(elbos), rel=1e-5)
    and results['nll'] < results['neg_elbo']
  )
  assert results['effective_samples'] == pytest.approx(np.mean(effective), rel=1e-5)
  assert results['nll_standard_error'] == pytest.approx(np.std(nll) / 3**0.5, rel=1e-4)


def test_importance_samples_come_in_chunks():
  message = 'evals.iwae.num_samples=10 must be a multiple of config.evals.iwae.chunk=4'
  with pytest.raises(UserError, match=message):
    iwae.make(Weighted(), batches([1]), iwae.Options(num_samples=10, chunk=4))


@pytest.mark.parametrize(
  ('name', 'values', 'message'),
  [
    ('elbo', {'max_batches': -1}, 'config.evals.elbo.max_batches=-1 must not be negative'),
    ('pictures', {'num': 0}, 'config.evals.pictures.num=0 must be at least 1'),
    ('pruned', {'share': 0.0}, 'config.evals.pruned.share=0.0 must lie between 0 and 1'),
    ('iwae', {'num_samples': 0}, 'config.evals.iwae.num_samples=0 must be at least 1'),
    ('iwae', {'chunk': 0}, 'config.evals.iwae.chunk=0 must be at least 1'),
    ('iwae', {'samples': 1}, 'config.evals.iwae has samples, but may have chunk, num_samples'),
  ],
)
def test_options_have_ranges(name, values, message):
  model = types.SimpleNamespace(**dict.fromkeys(evals.EVALS[name].NEEDS))
  config = ml_collections.ConfigDict(evals.defaults())
  with pytest.raises(UserError, match=message):
    evals.create(name, config, model, batches([1]), 0, values=values)


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'batch_size': 0}, 'config.evals.batch_size=0 must be at least 1'),
    ({'max_batches': -2}, 'config.evals.max_batches=-2 must not be negative'),
    ({'names': ('elbo', 'fid')}, r"names=\('elbo', 'fid'\) must have no items but 'elbo', 'iwae'"),
    ({'elbo': {'every': -1}}, 'config.evals.elbo.every=-1 must not be negative'),
  ],
)
def test_the_section_has_ranges(values, message):
  config = ml_collections.ConfigDict(evals.defaults())
  config.update(values)
  with pytest.raises(UserError, match=message):
    evals.check(config)
    evals.scheduled(config, Reporter())


def test_metrics_of_another_shape_are_refused():
  class Other(Reporter):
    def loss(self, params, state, batch, *, rng, step, train):
      return jnp.zeros(()), (state, {'active': jnp.ones(3)})

  message = r"metric 'active' has shape \[3\]; expected a first axis of 2, the examples"
  with pytest.raises(UserError, match=message):
    elbo.make(Other(), batches([1, 2]))({}, {}, 0, RNG)


def test_scalar_metrics_that_are_left_out_are_named(capsys):
  elbo.make(Reporter(), batches([1, 2], [3, 4]))(jnp.float32(1), {}, 0, RNG)
  said = 'evaluation elbo leaves out active: no values per example'
  assert capsys.readouterr().out.splitlines() == [said]


def test_the_devices_have_work_while_results_are_read():
  """Three results are asked for before the first one is read, and no more than that."""
  started = []

  def results():
    for i in range(5):
      started.append(i)
      yield jnp.full(2, i)

  read = averaging.on_host(results(), ahead=2)
  for i, result in enumerate(read):
    np.testing.assert_array_equal(result, [i, i])
    assert isinstance(result, np.ndarray) and len(started) == min(i + 3, 5)


def test_samples_after_a_refresh():
  """The shade of a sample is the state, which the refresh has set."""

  class Refreshed(Reporter):
    def refresh(self, params, state, rng, temperature, iterations, num):
      return jnp.float32(10 * iterations + num)

    def sample(self, params, state, rng, num, temperature):
      return jnp.full((num, 2, 2, 1), state.astype(jnp.uint8))

  options = dict(num=1, temperatures=(1.0,), num_partial=1)

  def shade(**more):
    draw = pictures.make(Refreshed(), batches([1]), pictures.Options(**options, **more))
    return draw({}, jnp.float32(7), 0, RNG)['samples'].max()

  assert shade() == 7 and shade(refresh_iterations=3, refresh_num=4) == 34
  with pytest.raises(UserError, match='refresh_iterations=3 needs refresh'):
    pictures.make(Reporter(), batches([1]), pictures.Options(refresh_iterations=3))


def test_histograms_take_evenly_from_many_values(monkeypatch):
  monkeypatch.setattr(histograms, 'MAX_VALUES', 4)
  named = lambda params, state, batch, rng: {
    'few': batch['image'][0].astype(jnp.float32),
    'many': jnp.arange(12.0).reshape(3, 4),
  }
  results = histograms.make(types.SimpleNamespace(histograms=named), batches([7]))({}, {}, 0, RNG)
  np.testing.assert_array_equal(results['few'], [[7, 7, 7, 7]])
  np.testing.assert_array_equal(results['many'], [[0, 3, 6, 9]])
