"""The interface of every system for trainer and evaluations, on its smallest model."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hvae_tpu import models
from hvae_tpu.devices import sharding
from hvae_tpu.nn import distributions
from tests.support import tiny

RNG = jax.random.key(7)


class Fitted(NamedTuple):
  """A system after fifty steps on one batch; `grads` belong to one more step."""

  name: str
  model: Any
  batch: dict[str, jax.Array]
  fresh: Any
  params: Any
  state: Any
  losses: list[float]
  grads: Any


@functools.cache
def gradient(model):
  """(params, state, batch, rng) -> ((loss, (state, metrics)), grads), jitted."""
  objective = functools.partial(model.loss, step=jnp.int32(0), train=True)

  def call(params, state, batch, rng):
    return jax.value_and_grad(lambda p: objective(p, state, batch, rng=rng), has_aux=True)(params)

  return jax.jit(call)


# A run of the default tests takes the two that compile fastest.
PARAMS = [
  pytest.param(name, marks=() if name in ('vdvae', 'slot_attention') else pytest.mark.slow)
  for name in models.MODELS
]


@pytest.fixture(scope='module', params=PARAMS)
def fitted(request) -> Fitted:
  model = tiny.SYSTEMS[request.param].model
  batch = tiny.batch(request.param)
  fresh, state = jax.jit(model.init)(jax.random.key(0), batch)
  tx = optax.adam(tiny.SYSTEMS[request.param].learning_rate)
  apply = jax.jit(lambda g, o, p: (lambda u, o: (optax.apply_updates(p, u), o))(*tx.update(g, o)))
  params, opt_state, losses, call = fresh, tx.init(fresh), [], gradient(model)
  for i in range(50):
    (loss, (state, _)), grads = call(params, state, batch, jax.random.fold_in(RNG, i))
    params, opt_state = apply(grads, opt_state, params)
    losses.append(float(loss))
  (_, (state, _)), grads = call(params, state, batch, RNG)
  return Fitted(request.param, model, batch, fresh, params, state, losses, grads)


def needs(fitted: Fitted, *methods: str) -> None:
  """Leaves the test where the system has no such method."""
  if missing := [method for method in methods if not hasattr(fitted.model, method)]:
    pytest.skip(f'{fitted.name} has no {missing[0]}()')


def rows(batch: dict[str, jax.Array]) -> int:
  return len(next(iter(batch.values())))


@pytest.mark.slow
def test_loss_is_finite_and_falls(fitted):
  assert np.isfinite(fitted.losses).all()
  assert np.mean(fitted.losses[-5:]) < 0.9 * np.mean(fitted.losses[:5])


def test_every_parameter_gets_a_gradient(fitted):
  """After some steps, since zero-initialised kernels hide those before them; each slice too."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(fitted.grads):
    name = jax.tree_util.keystr(path)
    assert np.isfinite(leaf).all(), name
    stacked = any(sharding.STACK.fullmatch(key.key) for key in path)
    assert all(np.any(part != 0) for part in (leaf if stacked else leaf[None])), name


def test_metrics_have_the_batch_first(fitted):
  loss = functools.partial(fitted.model.loss, step=0, train=False, rng=RNG)
  _, (_, metrics) = jax.eval_shape(loss, fitted.params, fitted.state, fitted.batch)
  for name, metric in metrics.items():
    assert metric.dtype == jnp.float32, name
    assert metric.ndim == 0 or metric.shape[0] == rows(fitted.batch), name
  levels = len(fitted.model.level_names)
  if 'kl_per_level' not in metrics:
    assert not levels
    return
  assert metrics['kl_per_level'].shape == (rows(fitted.batch), levels)
  assert len(set(fitted.model.level_names)) == levels


def test_samples(fitted):
  needs(fitted, 'sample')
  sample = jax.jit(fitted.model.sample, static_argnums=3)
  pictures = sample(fitted.params, fitted.state, RNG, 3, jnp.float32(1))
  assert pictures.dtype == jnp.uint8
  assert pictures.shape == (3, *fitted.batch['image'].shape[1:])
  again = sample(fitted.params, fitted.state, jax.random.key(8), 3, jnp.float32(1))
  assert np.any(pictures != again)


@pytest.mark.slow
def test_temperatures(fitted, monkeypatch):
  needs(fitted, 'sample')
  sample = jax.jit(fitted.model.sample, static_argnums=3)
  draw = lambda t: np.asarray(sample(fitted.params, fitted.state, RNG, 3, jnp.float32(t)))
  levels = len(fitted.model.level_names)
  np.testing.assert_array_equal(draw(0.5), draw([0.5] * levels))
  assert np.any(draw([0.5] * levels) != draw([0.5] * (levels - 1) + [2.0]))
  # Drawn before the noise is replaced, and traced anew after.
  mean_path, no_temperature = draw(0.0), draw([1.0] * levels)
  monkeypatch.setattr(distributions, 'normal', lambda rng, shape: jnp.zeros(shape))
  sample = jax.jit(lambda *args: fitted.model.sample(*args[:3], 3, args[3]))
  np.testing.assert_array_equal(draw_with(sample, fitted, 1.0), mean_path)
  assert np.any(no_temperature != mean_path)


def draw_with(sample, fitted, temperature):
  return np.asarray(sample(fitted.params, fitted.state, RNG, jnp.float32(temperature)))


@pytest.fixture(scope='module')
def coding(fitted):
  """Latents of the batch, and the jitted decoder: (latents, given, rng) -> pictures."""
  needs(fitted, 'encode', 'decode')
  latents = jax.jit(fitted.model.encode)(fitted.params, fitted.state, fitted.batch, RNG)
  decode = jax.jit(
    lambda latents, given, rng: fitted.model.decode(
      fitted.params, fitted.state, latents, rng, jnp.float32(0.7), given
    )
  )
  return latents, lambda latents, given, rng=RNG: decode(latents, jnp.asarray(given), rng)


@pytest.mark.slow
def test_replaying_the_posterior_reproduces_its_pictures(fitted, coding):
  latents, decode = coding
  assert len(latents) == len(fitted.model.level_names)
  decoded = functools.partial(tiny.SYSTEMS[fitted.name].decoded, fitted.model)
  pixel_rng = jax.random.key(1)
  expected = jax.jit(decoded)(fitted.params, fitted.state, fitted.batch['image'], RNG, pixel_rng)
  pictures = decode(latents, np.ones(len(latents), bool), jax.random.key(1))
  # Two programs: float32 sums in another order may cross a rounding edge of uint8.
  assert np.abs(np.asarray(pictures, int) - np.asarray(expected, int)).max() <= 1
  other = decode(latents, np.zeros(len(latents), bool), jax.random.key(1))
  assert np.abs(np.asarray(other, int) - np.asarray(expected, int)).max() > 1


def test_only_the_given_latents_matter(fitted, coding):
  latents, decode = coding
  for given in np.eye(len(latents), dtype=bool):
    changed = tuple(
      group if keep else group._replace(z=group.z + 3)
      for group, keep in zip(latents, given, strict=True)
    )
    np.testing.assert_array_equal(decode(latents, given), decode(changed, given))
    assert np.any(decode(latents, ~given) != decode(changed, ~given))


def test_latents_are_named_with_their_distribution(coding):
  for group in coding[0]:
    assert group.mean.shape == group.scale.shape == group.z.shape
    assert group.z.dtype == group.mean.dtype == group.scale.dtype == jnp.float32
    assert (group.scale > 0).all()


@pytest.mark.slow
def test_variates_sum_to_levels(fitted):
  needs(fitted, 'kl_per_variate')
  kl = jax.jit(fitted.model.kl_per_variate)(fitted.params, fitted.state, fitted.batch, RNG)
  loss = functools.partial(fitted.model.loss, step=jnp.int32(0), train=False)
  _, (_, metrics) = jax.jit(loss)(fitted.params, fitted.state, fitted.batch, rng=RNG)
  np.testing.assert_allclose(kl.sum(-1), metrics['kl_per_level'], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(metrics['kl_per_level'].sum(-1), metrics['kl'], rtol=1e-5)
  np.testing.assert_allclose(metrics['nll'] + metrics['kl'], metrics['neg_elbo'], rtol=1e-6)


@pytest.mark.slow
def test_log_weights_are_those_of_the_elbo(fitted):
  """Their mean over many draws is the ELBO; where the KL is sampled, draw by draw."""
  needs(fitted, 'log_weights')
  keys = jax.random.split(jax.random.key(3), 64)
  draw = jax.jit(jax.vmap(fitted.model.log_weights, in_axes=(None, None, None, 0)))
  weights = draw(fitted.params, fitted.state, fitted.batch, keys)
  loss = functools.partial(fitted.model.loss, step=jnp.int32(0), train=False)
  run = jax.jit(lambda key: loss(fitted.params, fitted.state, fitted.batch, rng=key)[1][1])
  elbo = -np.mean([run(key)['neg_elbo'] for key in keys[:16]], axis=0)
  error = np.std(weights, axis=0) / 8 + 0.01 * np.abs(elbo)
  assert (np.abs(weights.mean(0) - elbo) < 5 * error).all()


def test_optional_methods_are_there():
  for name in ('vdvae', 'efficient_vdvae'):
    for method in ('pruned', 'histograms', 'output_temperature', 'level_sizes'):
      assert hasattr(tiny.SYSTEMS[name].model, method), (name, method)


@pytest.mark.slow
def test_pruned_variates_cost_nothing(fitted):
  if not hasattr(fitted.model, 'pruned'):
    pytest.skip('this system does not prune')
  model, arguments = fitted.model, (fitted.params, fitted.state, fitted.batch, RNG)
  pruned = jax.jit(lambda variates: model.pruned(*arguments, variates))
  encode = jax.jit(lambda variates: model.encode(*arguments, variates))
  whole = model.pruned(*arguments, None)
  every = np.ones(model.kl_per_variate(*arguments).shape[1:], bool)
  np.testing.assert_allclose(pruned(every)['neg_elbo'], whole['neg_elbo'], rtol=1e-5)
  assert (pruned(~every)['kl'] == 0).all() and (pruned(~every)['nll'] != whole['nll']).all()
  first = every & (np.arange(len(every)) == 0)[:, None]
  kl = pruned(first)['kl_per_level']
  np.testing.assert_allclose(kl[:, 0], whole['kl_per_level'][:, 0], rtol=1e-4, atol=1e-6)
  assert (kl[:, 1:] == 0).all()
  np.testing.assert_allclose(encode(first)[0].z, encode(every)[0].z, rtol=1e-5, atol=1e-6)
  assert np.any(np.asarray(encode(first)[-1].z) != np.asarray(encode(every)[-1].z))


@pytest.mark.slow
def test_pruned_variates_are_drawn_again_alike(fitted):
  """`decode` has the noise of `encode` with the first part of its key; given is per variate."""
  if not hasattr(fitted.model, 'pruned'):
    pytest.skip('this system does not prune')
  model, (params, state, batch) = fitted.model, (fitted.params, fitted.state, fitted.batch)
  shape = model.kl_per_variate(params, state, batch, RNG).shape[1:]
  chosen = np.random.default_rng(0).random(shape) < 0.5
  latents = jax.jit(model.encode)(params, state, batch, jax.random.split(RNG)[0], chosen)
  decode = jax.jit(lambda latents, given: model.decode(params, state, latents, RNG, 1.0, given))
  marred = tuple(
    group._replace(z=jnp.where(row, group.z, 7.0))
    for group, row in zip(latents, chosen, strict=True)
  )
  again = np.asarray(decode(marred, chosen), int)
  # Two programs: a rounding edge of uint8 may be crossed.
  assert np.abs(again - np.asarray(decode(latents, np.ones_like(chosen)), int)).max() <= 1
  np.testing.assert_array_equal(again, decode(latents, chosen))


def test_histograms(fitted):
  if not hasattr(fitted.model, 'histograms'):
    pytest.skip('this system names no quantities')
  values = fitted.model.histograms(fitted.params, fitted.state, fitted.batch, RNG)
  assert {name: value.shape for name, value in values.items()} == {
    'targets': (4, 8, 8, 3),
    'outputs': (4, 8, 8, 3),
    'mixture_means': (3, 2, 4, 8, 8),
    'mixture_log_scales': (3, 2, 4, 8, 8),
  }
  assert all(np.isfinite(value).all() for value in values.values())


def test_output_temperature_narrows_what_is_drawn(fitted):
  """At nearly 0 it is the mean of the likeliest component, whatever the noise."""
  if not hasattr(fitted.model, 'output_temperature'):
    pytest.skip('this system has no temperature of the output')
  if fitted.name == 'nvae':
    pytest.skip('its published rule widens the draws; its golden files hold that')
  model = dataclasses.replace(fitted.model, output_temperature=1e-6)
  out = np.random.default_rng(0).standard_normal((2, 8, 8, model.out_channels)).astype(np.float32)
  draw = lambda model, seed: np.asarray(model.draw(jnp.asarray(out), jax.random.key(seed)))
  np.testing.assert_allclose(draw(model, 0), draw(model, 1), atol=1e-3)
  assert np.abs(draw(fitted.model, 0) - draw(fitted.model, 1)).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
  'fields',
  [{'remat': 'blocks'}, {'unroll': '1'}, {'remat': 'convs', 'unroll': '1'}],
  ids=str,
)
def test_execution_does_not_change_the_numbers(fitted, fields):
  needs(fitted, *fields)
  arguments = (fitted.params, fitted.state, fitted.batch, RNG)
  (loss, (state, _)), grads = gradient(fitted.model)(*arguments)
  other = gradient(dataclasses.replace(fitted.model, **fields))(*arguments)
  (other, (other_state, _)), other_grads = other
  np.testing.assert_allclose(other, loss, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), other_state, state
  )
  # Gradients that nearly cancel have the rounding errors of their large terms.
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * largest),
    other_grads,
    grads,
  )


@pytest.mark.slow
def test_bfloat16(fitted):
  model = dataclasses.replace(fitted.model, dtype='bfloat16')
  shapes, _ = jax.eval_shape(model.init, RNG, fitted.batch)
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype('float32')}
  (loss, (_, metrics)), grads = gradient(model)(fitted.params, fitted.state, fitted.batch, RNG)
  (exact, _), _ = gradient(fitted.model)(fitted.params, fitted.state, fitted.batch, RNG)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
  assert {m.dtype for m in metrics.values()} == {np.dtype('float32')}
  if hasattr(model, 'encode'):
    latents = jax.eval_shape(model.encode, fitted.params, fitted.state, fitted.batch, RNG)
    assert {leaf.dtype for leaf in jax.tree.leaves(latents)} == {np.dtype('float32')}
  assert loss != exact
  np.testing.assert_allclose(loss, exact, rtol=0.02)  # 8 bits of mantissa over ten blocks


@pytest.mark.slow
def test_examples_do_not_mix(fitted, monkeypatch):
  monkeypatch.setattr(distributions, 'normal', lambda rng, shape: jnp.zeros(shape))
  loss = jax.jit(
    lambda batch: fitted.model.loss(
      fitted.params, fitted.state, batch, rng=RNG, step=jnp.int32(0), train=False
    )[1][1]
  )
  order = np.array([2, 0, 3, 1])
  straight, permuted = loss(fitted.batch), loss(jax.tree.map(lambda v: v[order], fitted.batch))
  for name, metric in straight.items():
    if metric.ndim:
      np.testing.assert_allclose(permuted[name], metric[order], rtol=1e-5, atol=1e-5, err_msg=name)
