"""Likelihoods, divergences and draws against sums, Monte Carlo means and derivatives."""

import functools

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvae_tpu.nn import distributions, layers

SETTINGS = settings(max_examples=25, deadline=None)
LEVELS = {8: np.arange(256), 5: np.arange(32) * 8}
EXACT = {8: dict(half_bin=1 / 255), 5: dict(half_bin=4 / 127.5, upper_edge=244 / 127.5 - 1)}
finite = functools.partial(st.floats, width=32, allow_nan=False)


@functools.partial(jax.jit, static_argnums=(0, 3))
def red_masses(kind, means, scales, bits):
  """Probabilities of all levels of red, [levels], under two equal components."""
  levels = jnp.asarray((LEVELS[bits] - 127.5) / 127.5, jnp.float32)
  x = jnp.stack([levels, jnp.zeros_like(levels), jnp.zeros_like(levels)], -1)[None, None]
  shape = (2, *x.shape[:-1])
  spread = lambda v: jnp.broadcast_to(v[:, None, None, None], shape)
  # Green and blue are made certain, so that only red counts: a wide bin around their target.
  certain = jnp.full((2, *shape), 20.0)
  mixture = distributions.LogisticMixture(
    jnp.zeros(shape),
    jnp.concatenate([spread(means)[None], jnp.zeros((2, *shape))]),
    jnp.concatenate([spread(scales)[None], -certain if kind == 'torch' else 1e4 * certain]),
    jnp.zeros((3, *shape)),
  )
  log_prob = distributions.dmol_log_prob if kind == 'torch' else distributions.dmol_exact_log_prob
  return jnp.exp(log_prob(mixture, x, **EXACT[bits])[0, 0])


def green_and_blue(kind: str, bits: int) -> float:
  """Mass of the centred bins of green and blue in `red_masses`."""
  scale = {'torch': np.exp(7.0), 'exact': 2e5}[kind]
  inside = np.tanh(scale * EXACT[bits]['half_bin'] / 2)  # sigmoid(v) - sigmoid(-v)
  return inside**2


@pytest.mark.parametrize('bits', [8, 5])
@pytest.mark.parametrize('kind', ['torch', 'exact'])
@SETTINGS
@given(means=st.tuples(finite(-1, 1), finite(-1, 1)), scale=finite(-5, 1))
def test_masses_sum_to_one(kind, bits, means, scale):
  # The raw scale of the exact form is an inverse scale before a softplus.
  raw = scale if kind == 'torch' else float(np.log(np.expm1(np.exp(-scale))))
  masses = red_masses(kind, jnp.array(means), jnp.array([raw, raw]), bits)
  total = float(masses.sum()) / green_and_blue(kind, bits)
  # torch replaces the masses below 1e-5 by a density: 256 of them, each off by a small part.
  assert total == pytest.approx(1, abs=1e-3 if kind == 'torch' else 1e-4)


def test_released_five_bit_bins_overlap():
  """Section 3.3 of the reference: 1/31 as half a bin gives 1.0282 in all."""
  mixture_scale, levels = -3.0, (LEVELS[5] - 127.5) / 127.5
  x = jnp.stack([jnp.asarray(levels, jnp.float32)] + [jnp.zeros(32)] * 2, -1)[None, None]
  shape = (1, 1, 1, 32)
  scales = jnp.stack([jnp.full(shape, mixture_scale)] + [jnp.full(shape, -20.0)] * 2)
  mixture = distributions.LogisticMixture(
    jnp.zeros(shape), jnp.zeros((3, *shape)), scales, jnp.zeros((3, *shape))
  )
  total = jnp.exp(distributions.dmol_log_prob(mixture, x, half_bin=1 / 31)).sum()
  assert total == pytest.approx(1.0282, abs=1e-4)


def test_both_forms_agree():
  rng = np.random.default_rng(0)
  shape = (1, 4, 4)
  logits, means = rng.standard_normal((3, *shape)), 0.3 * rng.standard_normal((3, 3, *shape))
  log_scales = rng.uniform(-4, -1, (3, 3, *shape))
  coeffs = np.tanh(rng.standard_normal((3, 3, *shape)))
  x = jnp.asarray((rng.integers(0, 256, (*shape, 3)) - 127.5) / 127.5, jnp.float32)
  build = lambda scales: distributions.LogisticMixture(
    *(jnp.asarray(a, jnp.float32) for a in (logits, means, scales, coeffs))
  )
  torch = distributions.dmol_log_prob(build(log_scales), x, half_bin=1 / 255)
  exact = distributions.dmol_exact_log_prob(
    build(np.log(np.expm1(np.exp(-log_scales)))), x, half_bin=1 / 255
  )
  np.testing.assert_allclose(torch, exact, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize('kind', ['torch', 'exact'])
@pytest.mark.parametrize('size', [1e-3, 1.0, 1e3])
def test_gradients_stay_finite(kind, size):
  channels = size * np.random.default_rng(0).standard_normal((1, 4, 4, 20)).astype(np.float32)
  x = jnp.asarray(np.random.default_rng(1).choice([-1, 1, 0.1], (1, 4, 4, 3)), jnp.float32)

  def total(channels):
    if kind == 'torch':
      mixture = distributions.mixture_by_colour(channels, 2)
      return distributions.dmol_log_prob(mixture, x, half_bin=1 / 255).sum()
    mixture = distributions.mixture_by_component(channels, 2)
    return distributions.dmol_exact_log_prob(mixture, x, half_bin=1 / 255).sum()

  value, gradient = jax.jit(jax.value_and_grad(total))(channels)
  assert np.isfinite(value) and np.isfinite(gradient).all() and np.any(gradient != 0)


def test_channel_orders():
  channels = jnp.arange(20.0)
  by_colour, by_component = (
    distributions.mixture_by_colour(channels, 2),
    distributions.mixture_by_component(channels, 2),
  )
  for mixture in (by_colour, by_component):
    np.testing.assert_array_equal(mixture.logits, [0, 1])
  np.testing.assert_array_equal(by_colour.means, [[2, 3], [8, 9], [14, 15]])
  np.testing.assert_array_equal(by_colour.scales, [[4, 5], [10, 11], [16, 17]])
  np.testing.assert_array_equal(by_component.means, [[2, 5], [8, 11], [14, 17]])
  np.testing.assert_array_equal(by_component.scales, [[3, 6], [9, 12], [15, 18]])


normals = st.tuples(finite(-3, 3), finite(-2, 2))


@jax.jit
def kl(q, p):
  return distributions.Normal(*q).kl(distributions.Normal(*p))


@SETTINGS
@given(normals, normals)
def test_kl_is_positive_and_zero_at_equality(q, p):
  arrays = lambda n: tuple(map(jnp.float32, n))
  # float32: the terms cancel, and the rounding errors of the largest term remain.
  largest = 1 + np.exp(2 * (q[1] - p[1])) + (q[0] - p[0]) ** 2 * np.exp(-2 * p[1])
  assert kl(arrays(q), arrays(p)) >= -1e-6 * largest
  assert abs(kl(arrays(q), arrays(q))) < 1e-6


@pytest.mark.parametrize(
  ('q', 'p'), [((0.3, -0.5), (-0.2, 0.4)), ((1.0, 0.5), (0.0, 0.0)), ((0.0, -2.0), (0.5, -1.0))]
)
def test_kl_is_a_monte_carlo_mean(q, p):
  noise = np.random.default_rng(0).standard_normal(100_000)
  z = np.asarray(distributions.Normal(*map(jnp.float32, q)).sample(noise))
  log_density = lambda n: -0.5 * ((z - n[0]) / np.exp(n[1])) ** 2 - n[1]
  ratio = log_density(q) - log_density(p)
  error = 5 * ratio.std() / len(z) ** 0.5
  assert float(kl(tuple(map(jnp.float32, q)), tuple(map(jnp.float32, p)))) == pytest.approx(
    ratio.mean(), abs=error
  )


def test_temperature_multiplies_the_deviation():
  prior = distributions.Normal(jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0]))
  np.testing.assert_allclose(prior.tempered(0.5).std, 0.5 * prior.std, rtol=1e-6)
  np.testing.assert_array_equal(prior.tempered(0.0).sample(jnp.array([9.0, -9.0])), prior.mean)
  assert prior.tempered(None) is prior


@SETTINGS
@given(finite(2.0**-66, 80.0))
def test_log1mexp(v):
  value, slope = jax.value_and_grad(distributions.log1mexp)(jnp.float32(v))
  v = np.float64(np.float32(v))
  np.testing.assert_allclose(value, np.log(-np.expm1(-v)), rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(slope, 1 / np.expm1(v), rtol=1e-5)


@pytest.mark.parametrize('x', [0.0, 1.0, 0.25])
@pytest.mark.parametrize('logit', [-100.0, -1.5, 0.0, 3.0, 100.0])
def test_bernoulli(logit, x):
  expected = -(x * np.logaddexp(0, -logit) + (1 - x) * np.logaddexp(0, logit))
  value, slope = jax.value_and_grad(distributions.bernoulli_log_prob)(
    jnp.float32(logit), jnp.float32(x)
  )
  np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)
  assert np.isfinite(slope)


@pytest.mark.parametrize('size', [1e-3, 1.0, 100.0])
def test_samples_lie_in_range(size):
  channels = size * np.random.default_rng(0).standard_normal((2, 8, 8, 20)).astype(np.float32)
  clipped = distributions.dmol_sample(
    jax.random.key(0), distributions.mixture_by_colour(channels, 2)
  )
  assert clipped.shape == (2, 8, 8, 3) and np.abs(clipped).max() <= 1
  free = distributions.dmol_exact_sample(
    jax.random.key(0), distributions.mixture_by_component(channels, 2)
  )
  assert free.shape == (2, 8, 8, 3) and distributions.to_uint8(free).dtype == jnp.uint8


def test_samples_have_the_mean_and_the_deviation():
  """One component, coefficients zero: a logistic of scale s has deviation pi s / sqrt(3)."""
  shape = (1, 200, 200)
  fill = lambda value: jnp.full((3, 1, *shape), value)
  for scales, draw in (
    (-3.0, distributions.dmol_sample),
    (np.log(np.expm1(np.exp(3.0))), distributions.dmol_exact_sample),
  ):
    mixture = distributions.LogisticMixture(
      jnp.zeros((1, *shape)), fill(0.2), fill(scales), fill(0.0)
    )
    x = np.asarray(draw(jax.random.key(0), mixture))
    deviation = np.pi * np.exp(-3.0) / 3**0.5
    assert x.mean() == pytest.approx(0.2, abs=5 * deviation / x.size**0.5)
    assert x.std() == pytest.approx(deviation, rel=0.02)


def test_rounding():
  x = jnp.array([-2.0, -1.0, 0.6 / 127.5 - 1, 0.0, 1.0, 2.0])
  np.testing.assert_array_equal(distributions.to_uint8(x), [0, 0, 1, 128, 255, 255])
  np.testing.assert_array_equal(distributions.to_uint8(x, 'truncate'), [0, 0, 0, 127, 255, 255])


def test_draws_do_not_depend_on_how_they_are_shaped():
  key = jax.random.key(3)
  for draw in (
    distributions.normal,
    distributions.uniform,
    distributions.gumbel,
    distributions.logistic,
  ):
    values = draw(key, (4, 3, 2))
    assert values.dtype == jnp.float32
    np.testing.assert_array_equal(values.ravel(), draw(key, (24,)))
  spread = distributions.uniform(key, (1000,), -2.0, 3.0)
  assert -2 <= spread.min() < -1.9 and 2.9 < spread.max() < 3


def test_metrics():
  nll, kl = jnp.array([10.0, 20.0]), jnp.array([[[1.0, 2.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.1]]])
  metrics = distributions.elbo_metrics(nll, kl, 8)
  np.testing.assert_allclose(metrics['kl_per_level'], [[3, 3], [0, 0.1]])
  np.testing.assert_allclose(metrics['neg_elbo'], [16, 20.1], rtol=1e-6)
  np.testing.assert_allclose(metrics['bpd'], np.array([16, 20.1]) / 8 / np.log(2), rtol=1e-6)
  assert metrics['active_units'] == 3  # the last one's mean is 0.05


@pytest.mark.parametrize('approximate', [False, True])
def test_gelu_is_that_of_jax(approximate):
  x = jnp.concatenate([jnp.linspace(-12, 12, 997), jnp.array([-1e4, 1e4, 0.0])])
  ours = jax.jit(jax.vmap(jax.value_and_grad(lambda v: layers.gelu(v, approximate))))
  theirs = jax.jit(jax.vmap(jax.value_and_grad(lambda v: jax.nn.gelu(v, approximate=approximate))))
  for actual, expected in zip(ours(x), theirs(x), strict=True):
    # In the far tail erf leaves the rounding error of 1 - 1, times x.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
