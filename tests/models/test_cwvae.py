"""Clocks, hoisted products, open-loop prediction and weights of the Clockwork VAE."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.models import create
from hvae_tpu.models.cwvae import CWVAE, cells, frames, network, objective, recurrence
from hvae_tpu.nn import distributions, layers
from hvae_tpu.planning import work
from hvae_tpu.planning.benchmarks import cwvae_ticks
from tests.support import tiny

MODEL = tiny.SYSTEMS['cwvae'].model
RNG = jax.random.key(0)


@pytest.fixture(scope='module')
def trained():
  """Returns parameters of a tiny model, away from the initial ones, and three videos."""
  rng = np.random.default_rng(0)
  video = jnp.asarray(rng.integers(0, 256, (3, 13, 64, 64, 1)), jnp.uint8)
  params, _ = jax.jit(MODEL.init)(RNG, {'video': video})
  noisy = lambda p: p + 0.2 * rng.standard_normal(p.shape).astype(np.float32)
  return jax.tree.map(noisy, params), {'video': video}


@functools.cache
def predictor(model: CWVAE, num: int, total: int = 0, context: int = 4):
  predict = functools.partial(model.predict, context=context, num=num, total=total)
  return jax.jit(lambda params, batch, carry: predict(params, {}, batch, RNG, carry=carry))


@pytest.mark.slow
@pytest.mark.parametrize('observed', [True, False])
@pytest.mark.parametrize('unroll', ['1', '3', 'full'])
def test_the_loop_equals_single_ticks(observed, unroll):
  config = MODEL.rssm._replace(stoch=3, deter=5, embed=4, unroll=unroll)
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
  above, features, noise = normal(2, 3, 8), normal(2, 7, 6), normal(7, 2, 3)
  start = recurrence.State(normal(2, 3), normal(2, 5))
  cell = cells.Cell(config)
  params = cell.init(RNG, above, 3, features, start, noise)['params']
  params = jax.tree.map(lambda p: p + 0.3 * normal(*p.shape), params)
  seen = features if observed else None
  ticks, end = jax.jit(cell.apply, static_argnums=2)(
    {'params': params}, above, 3, seen, start, noise
  )
  state = start
  for i in range(7):
    observation = features[:, i] if observed else None
    state, *sides = cwvae_ticks.tick(params, config, above[:, i // 3], observation, state, noise[i])
    np.testing.assert_allclose(ticks.sample[:, i], state.sample, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ticks.det[:, i], state.det, rtol=1e-4, atol=1e-5)
    for dist, (mean, std) in zip((ticks.prior, ticks.posterior), sides, strict=True):
      np.testing.assert_allclose(dist.mean[:, i], mean, rtol=1e-4, atol=1e-5)
      np.testing.assert_allclose(dist.std[:, i], std, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(end.sample, state.sample, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_products_and_their_gradients_are_of_the_dtype(dtype):
  draw = lambda *shape: np.random.default_rng(0).standard_normal(shape).astype(np.float32)
  x, kernel, weight = draw(3, 2, 5), draw(5, 4), draw(3, 2, 4)
  ours = lambda x, kernel: (recurrence.product(jnp.dtype(dtype), x, kernel) * weight).sum()
  plain = lambda x, kernel: (jnp.matmul(x, kernel) * weight).sum()
  gradient = jax.grad(ours, argnums=(0, 1))
  for actual, expected in zip(gradient(x, kernel), jax.grad(plain, (0, 1))(x, kernel), strict=True):
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, atol=5e-2 if dtype == 'bfloat16' else 1e-6)
  program = jax.jit(gradient).lower(x, kernel).as_text()
  lines = [line.partition(' : ')[2] for line in program.splitlines() if 'dot_general' in line]
  operands = [line.partition('->')[0].count(f'x{dtype[0]}') for line in lines]
  assert operands and set(operands) == {2}  # both factors


@pytest.mark.slow
def test_rematerialisation_chooses_what_is_computed_again(trained):
  params, batch = trained

  def flops(model: CWVAE, differentiate=jax.grad) -> float:
    loss = lambda p: model.loss(p, {}, batch, rng=RNG, step=jnp.int32(0), train=True)[0]
    return work.count(jax.make_jaxpr(differentiate(loss))(params).jaxpr).flops

  remat = {name: flops(dataclasses.replace(MODEL, remat=name)) for name in layers.REMAT}
  assert remat['none'] == remat['convs'] < remat['blocks']
  # Two products for the gradient of each: none is taken both in the loop and behind it.
  assert remat['none'] <= 3 * flops(MODEL, lambda loss: loss)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('n', 'k', 'channels'), [(1, 5, 6), (5, 5, 16), (5, 5, 4), (13, 6, 3), (10, 6, 2)]
)
def test_transposed_convolutions_by_products(n, k, channels):
  both_forms(lambda by: frames.TransposedConv(2, k, cells.lecun_normal, 'float32', by), n, channels)


@pytest.mark.parametrize(('n', 'channels'), [(31, 2), (14, 3), (6, 1)])
def test_convolutions_by_products(n, channels):
  both_forms(lambda by: frames.Conv(2, cells.lecun_normal, 'float32', by), n, channels)


def both_forms(make, n, channels):
  """Values and gradients of the two forms of a layer agree."""
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, n, n, channels)), jnp.float32)
  params = make(False).init(RNG, x)

  def loss(params, x, layer):
    y = layer.apply(params, x)
    return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum(), y

  gradients = [
    jax.jit(jax.grad(functools.partial(loss, layer=make(by)), argnums=(0, 1), has_aux=True))
    for by in (False, True)
  ]
  direct, products = (grad(params, x) for grad in gradients)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
  jax.tree.map(close, products, direct)


@pytest.mark.slow
@pytest.mark.parametrize('fields', [{}, {'use_obs': 'TF'}, {'cell_reset_state': True}], ids=str)
def test_chunks_equal_the_whole(trained, fields):
  model = dataclasses.replace(MODEL, **fields)
  params, batch = trained
  whole, _ = predictor(model, 9)(params, batch, None)
  first, carry = predictor(model, 4, 9)(params, batch, None)
  second, carry = predictor(model, 4, 9)(params, batch, carry)
  last, carry = predictor(model, 1, 9)(params, batch, carry)
  chunks = np.concatenate([first, second, last], axis=1)
  np.testing.assert_allclose(chunks, whole, rtol=1e-5, atol=1e-5)
  assert whole.shape == (3, 9, 64, 64, 1) and np.ptp(whole[:, -1]) > 0
  with pytest.raises(UserError, match='only the last chunk of a prediction may end amid a tick'):
    predictor(model, 4, 9)(params, batch, carry)


@pytest.mark.slow
def test_a_prediction_reads_the_context_only(trained):
  params, batch = trained
  other = {'video': batch['video'].at[:, 4:].set(0)}
  actual, _ = predictor(MODEL, 9)(params, batch, None)
  np.testing.assert_array_equal(predictor(MODEL, 9)(params, other, None)[0], actual)
  changed = {'video': batch['video'].at[:, 3].set(0)}
  assert np.any(predictor(MODEL, 9)(params, changed, None)[0] != actual)


@pytest.mark.parametrize('fields', [{'cell_mean_only': True}, {'use_obs': 'TF'}], ids=str)
def test_options_change_predictions(trained, fields):
  params, batch = trained
  actual, _ = predictor(MODEL, 9)(params, batch, None)
  other, _ = predictor(dataclasses.replace(MODEL, **fields), 9)(params, batch, None)
  assert np.abs(np.asarray(actual) - other).max() > 1e-3


@pytest.mark.slow
def test_means_only_leave_nothing_to_chance(trained):
  params, batch = trained
  model = dataclasses.replace(MODEL, cell_mean_only=True)
  draw = lambda seed: model.predict(params, {}, batch, jax.random.key(seed), 4, num=2)[0]
  np.testing.assert_array_equal(draw(0), draw(1))


def test_noise_of_a_tick_does_not_depend_on_the_length():
  draw = lambda first, last: network.noise(RNG, jnp.arange(first, last), (2, 3))
  np.testing.assert_array_equal(draw(0, 9)[4:7], draw(4, 7))
  assert np.unique(draw(0, 9)).size == 54


def test_levels_see_the_sum_of_their_frames(trained):
  """Missing frames of the last tick count as 0."""
  params, batch = trained
  model = dataclasses.replace(MODEL, enc_dense_layers=0, tmp_abs_factor=3)
  params = {name: value for name, value in params.items() if not name.startswith('embed')}
  low, high = model._apply(params, 'features', model.scale(batch['video']))
  assert (low.shape[1], high.shape[1]) == (13, 5)
  np.testing.assert_allclose(high[:, 1], low[:, 3:6].sum(1), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(high[:, 4], low[:, 12], rtol=1e-5, atol=1e-6)


def test_reset_masks():
  reference = network.reset_masks('reference', 3, [14, 5, 2])
  assert [mask.astype(int).tolist() for mask in reference] == [
    [0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1],
    [0, 1, 0, 1, 0],
    [1, 1],
  ]
  low, high, top = network.reset_masks('clock', 3, [7, 3, 1])
  assert low.tolist() == [0, 1, 1, 0, 1, 1, 0] and high.tolist() == [0, 1, 1] and top == [1]


def levels(kls):
  """Levels of one tick and one latent with these KLs: means apart at unit deviation."""
  zeros = jnp.zeros((1, 1, 1))
  normal = lambda mean: distributions.Normal(mean, zeros)
  means = [jnp.full((1, 1, 1), (2 * kl) ** 0.5) for kl in kls]
  return [cells.LevelOutputs(normal(zeros), normal(mean), mean, mean) for mean in means]


@pytest.mark.parametrize(
  ('fields', 'expected'),
  [
    ({}, 2.5),
    ({'beta': (3.0,)}, 7.5),
    ({'beta': (2.0, 4.0)}, 6.0),
    ({'free_nats': 0.75}, 1.25),
    ({'free_nats': 0.75, 'beta': (1.0, 9.0)}, 1.25),
    ({'kl_grad_post_perc': 0.25}, 0.75 * 2.0 + 1 + 0.75 * 0.5 + 1),
    ({'kl_grad_post_perc': 0.75}, 0.25 * 2.0 + 1.5 + 0.25 * 0.5 + 1),
  ],
  ids=str,
)
def test_weights_of_the_kl(fields, expected):
  """The levels have 2 and 0.5 nats, so that both floors are reached."""
  model = dataclasses.replace(MODEL, **fields)
  assert float(objective.weighted_kl(model, levels([2.0, 0.5]))) == pytest.approx(expected)


def test_the_reference_keeps_the_posterior_out_of_the_balance():
  prior = distributions.Normal(jnp.zeros((1, 1, 1)), jnp.zeros((1, 1, 1)))
  mean = jnp.full((1, 1, 1), 3.0)

  def gradient(rule):
    kl = lambda mean: objective.balanced(
      distributions.Normal(mean, jnp.zeros_like(mean)), prior, 0.8, rule
    )
    return float(jax.grad(kl)(mean)[0, 0, 0])

  assert gradient('intended') == pytest.approx(0.8 * 3.0) and gradient('reference') == 0


@pytest.mark.slow
def test_the_elbo_is_not_weighted(trained):
  params, batch = trained
  model = dataclasses.replace(MODEL, beta=(5.0,), free_nats=1.0)
  loss = functools.partial(model.loss, params, {}, batch, rng=RNG, step=0)
  plain, (_, metrics) = loss(train=False)
  assert float(plain) == pytest.approx(float(metrics['neg_elbo'].mean() / 13), rel=1e-6)
  weighted = 5 * (metrics['kl_per_level'].mean(0) - 1).sum() / 13
  expected = metrics['nll'].mean() / 13 + weighted
  assert float(loss(train=True)[0]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize('activation', ['tanh', 'sigmoid', 'identity'])
def test_activations(trained, activation):
  params, batch = trained
  model = dataclasses.replace(MODEL, dec_activation=activation)
  actual = np.asarray(predictor(model, 2)(params, batch, None)[0])
  raw = dataclasses.replace(MODEL, dec_activation='identity')
  raw = np.asarray(predictor(raw, 2)(params, batch, None)[0])
  expected = {'tanh': np.tanh(raw), 'sigmoid': 1 / (1 + np.exp(-raw)), 'identity': raw}[activation]
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_initial_weights_of_keras():
  model = dataclasses.replace(MODEL, kernel_init='keras', cell_deter_size=16)
  params, _ = model.init(RNG, tiny.batch('cwvae'))
  kernel = cells.beside(params['cells_0']['gru']['recurrent_kernel'])
  np.testing.assert_allclose(kernel @ kernel.T, np.eye(16), atol=1e-5)
  gates = cells.beside(params['cells_0']['gru']['input_kernel'])
  assert np.abs(gates).max() <= (6 / (16 + 48)) ** 0.5


@pytest.mark.parametrize(
  ('context', 'shape', 'message'),
  [
    (3, (13, 64, 64, 1), 'a context of 3 frames must be a multiple of 2'),
    (14, (13, 64, 64, 1), 'sequences of 13 frames are shorter than the context of 14'),
    (4, (13, 64, 64, 3), r'the data has frames \[64, 64, 3\], .* ask for \[64, 64, 1\]'),
    (4, (13, 32, 32, 1), r'the data has frames \[32, 32, 1\]'),
  ],
)
def test_videos_that_do_not_fit(trained, context, shape, message):
  batch = {'video': jnp.zeros((1, *shape), jnp.uint8)}
  with pytest.raises(UserError, match=message):
    MODEL.predict(trained[0], {}, batch, RNG, context, num=2)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'cell_type': 'GRUCell'}, "config.model.cell_type='GRUCell' must be one of 'RSSMCell'"),
    ({'use_obs': 'T'}, "model.use_obs='T' must have T or F for each of the 2 levels"),
    ({'use_obs': 'TX'}, "model.use_obs='TX' must have T or F"),
    ({'beta': (1.0, 2.0, 3.0)}, 'model.beta has 3 entries; it must have 1, or 2'),
    ({'image_size': 32}, 'model.image_size=32 must be one of 64'),
    ({'levels': 0}, 'model.levels=0 must be at least 1'),
    ({'dec_stddev': 0.0}, 'model.dec_stddev=0.0 must be positive'),
    ({'kl_grad_post_perc': 1.5}, 'model.kl_grad_post_perc=1.5 must lie between 0 and 1'),
    ({'free_nats': -1.0}, 'model.free_nats=-1.0 must not be negative'),
    ({'unroll': '0'}, "config.model.unroll='0' must be"),
  ],
  ids=str,
)
def test_values_are_checked(fields, message):
  with pytest.raises(UserError) as caught:
    dataclasses.replace(MODEL, **fields)
  assert message in str(caught.value)


def test_auto_is_of_the_platform():
  section = dict(name='cwvae', convolutions='auto', unroll='auto', remat='auto')
  on = lambda platform: create(section, platform)
  assert (on('cpu').convolutions, on('tpu').convolutions) == ('products', 'direct')
  assert on('cpu').unroll == '1' and on('tpu').remat == 'blocks'
