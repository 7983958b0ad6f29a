"""Parts that only Efficient-VDVAE has: initial scales, scanned runs, pruning, weights of the KL."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.models.efficient_vdvae import layout, network, objective
from hvae_tpu.models.hierarchy import GroupDraw
from hvae_tpu.nn import distributions, layers
from tests.support import tiny

MODEL = tiny.SYSTEMS['efficient_vdvae'].model
WIDE = dataclasses.replace(
  MODEL,
  input_conv_filters=64,
  up_filters=(64,),
  down_filters=(64,),
  zdim=16,
  up_mid_filters_ratio=(0.5,),
  down_mid_filters_ratio=(0.5,),
)
RNG = jax.random.key(0)


@functools.cache
def initial(**fields) -> dict[str, np.ndarray]:
  """Parameters by name, of a network wide enough to measure scales; four groups."""
  model = dataclasses.replace(WIDE, **fields)
  params, _ = jax.jit(model.init)(RNG, {'image': jnp.zeros((1, 8, 8, 3), jnp.uint8)})
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return {'/'.join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


@pytest.mark.slow
@pytest.mark.parametrize('stable', [True, False])
@pytest.mark.parametrize('zero', [True, False])
def test_initial_scales(stable, zero):
  """Sections 2.1 to 2.3 of the reference: uniform by both fans, the last kernels scaled."""
  parameters = initial(stable_init=stable, initialize_prior_weights_as_zero=zero)
  for name, leaf in parameters.items():
    if not name.endswith('kernel'):
      assert not leaf.any(), name
      continue
    *window, fan_in, fan_out = leaf.shape[-4:]
    limit = (6 / (np.prod(window) * (fan_in + fan_out))) ** 0.5
    if 'z_projection' in name or (stable and 'residual_block' in name and 'conv_3' in name):
      limit *= 4**-0.5
    if zero and 'prior_net/conv_3' in name:
      limit = 0.0
    assert np.abs(leaf).max() <= limit * (1 + 1e-6), name
    # Five standard errors of the deviation of a uniform variable.
    assert leaf.std() == pytest.approx(limit / 3**0.5, rel=5 * (5 * leaf.size) ** -0.5), name


@pytest.mark.slow
def test_scanned_run_equals_a_python_loop():
  cells = layout.Cells(count=2, width=8, ratio=0.5, kernel=3, layers=1)
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
  inputs = (
    normal(3, 2, 4, 4, 8),
    GroupDraw(
      noise=normal(3, 2, 32),
      z=normal(3, 2, 4, 4, 2),
      given=jnp.array([True, False, False]),
      variates=jnp.array([[True, True], [True, False], [False, False]]),
    ),
  )
  y = normal(2, 4, 4, 8)
  stacked = layers.stack_blocks(network.DownBlock, 3, (0, 0))(cells, MODEL.block_config)
  params = stacked.init(RNG, y, *inputs)['params']
  params = jax.tree.map(lambda p: p + 0.1 * normal(*p.shape), params)
  scanned, levels = jax.jit(stacked.apply)({'params': params}, y, *inputs)

  block = network.DownBlock(cells, MODEL.block_config)
  for i, (params_of_block, inputs_of_block) in enumerate(layers.unstack((params, inputs), 3)):
    y, level = block.apply({'params': params_of_block}, y, *inputs_of_block)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
      level,
      jax.tree.map(lambda leaf, i=i: leaf[i], levels),
    )
  np.testing.assert_allclose(scanned, y, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(levels.group.z[0], inputs[1].z[0])
  np.testing.assert_array_equal(np.any(levels.kl > 0, axis=1), inputs[1].variates)


@pytest.fixture(scope='module')
def trained():
  """A tiny model away from its initial weights, where every group and variate has a KL."""
  batch = {'image': jnp.asarray(tiny.images(MODEL))}
  params, _ = jax.jit(MODEL.init)(RNG, batch)
  rng = np.random.default_rng(0)
  noisy = lambda p: p + 0.2 * rng.standard_normal(p.shape).astype(np.float32)
  return jax.tree.map(noisy, params), batch


@pytest.mark.parametrize('base', ['std', 'logstd'])
def test_kl_is_that_of_the_distributions(base):
  """Compares with the KL of two deviations; the legacy form lacks beta in its log term."""
  rng = np.random.default_rng(1)
  config = MODEL.block_config._replace(base=base)
  posterior, prior = (config.normal(jnp.asarray(rng.standard_normal((64, 4)))) for _ in range(2))
  ratio = posterior.std / prior.std
  distance = (posterior.mean - prior.mean) / prior.std
  expected = 0.5 * (distance**2 + ratio**2 - 1) - np.log(ratio)
  np.testing.assert_allclose(config.kl(posterior, prior), expected, rtol=1e-4, atol=1e-5)
  legacy = config._replace(legacy_kl=True).kl(posterior, prior)
  raw = np.log(ratio) / config.beta
  np.testing.assert_allclose(legacy, expected + np.log(ratio) - raw, rtol=1e-4, atol=1e-5)


def test_smoothing_starts_at_unit_scale():
  normal = MODEL.block_config.normal(jnp.zeros((1, 2)))
  assert normal.std[0, 0] == pytest.approx(1, rel=1e-6)
  slope = jax.grad(lambda raw: distributions.softplus(raw, 0.4))
  assert float(slope(100.0)) <= 1 and float(slope(0.0)) == pytest.approx(0.5)


@pytest.mark.parametrize('raw', [-200.0, -60.0, 0.0])
def test_no_scale_is_so_small_that_gradients_are_lost(raw):
  """Moves the means of the likelihood off the target, and takes both sides of the KL."""
  channels = np.zeros((1, 1, 1, 20), np.float32)
  channels[..., [4, 5, 10, 11, 16, 17]] = raw  # the scales: by colour, behind two means
  nll = lambda c: -MODEL.log_likelihood(c, jnp.array([0.3, -1.0, 1.0]).reshape(1, 1, 1, 3)).sum()
  off = jnp.array([0.5, raw])  # mean and raw scale of one variate
  kl = lambda p, q: MODEL.block_config.kl(
    MODEL.block_config.normal(p), MODEL.block_config.normal(q)
  ).sum()
  for gradients in (
    jax.value_and_grad(nll)(jnp.asarray(channels)),
    jax.value_and_grad(kl, (0, 1))(off, jnp.zeros(2)),
    jax.value_and_grad(kl, (0, 1))(jnp.zeros(2), off),
  ):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
  ('schedule', 'step', 'expected'),
  [
    ('linear', 0, 1e-4),
    ('linear', 31, 10 / 121),
    ('linear', 142, 1.0),
    ('linear', 10**6, 1.0),
    ('logistic', 500, 0.5),
    ('logistic', 600, 1 / (1 + np.exp(-1))),
    ('none', 0, 1.0),
  ],
)
def test_beta(schedule, step, expected):
  fields = dict(beta_schedule=schedule, beta_start=21, beta_steps=100)
  fields |= dict(beta_activation_step=500, beta_growth_rate=0.01)
  beta = objective.beta(dataclasses.replace(MODEL, **fields), step)
  assert float(beta) == pytest.approx(expected, rel=1e-5)


def test_gamma_pays_for_quiet_groups():
  kl, sizes = jnp.array([1.0, 3.0]), jnp.array([1.0, 12.0])
  weights = lambda step, scaled: objective.gamma(kl, sizes, step, 10, scaled)
  np.testing.assert_allclose(weights(10, False), [0.5, 1.5])
  np.testing.assert_allclose(weights(10, True), [1.6, 0.4])
  np.testing.assert_array_equal(weights(11, True), [1, 1])
  assert np.isfinite(objective.gamma(jnp.zeros(2), sizes, 0, 10, True)).all()


@pytest.mark.slow
def test_the_clock_weights_the_training_loss_only(trained):
  params, batch = trained
  model = dataclasses.replace(MODEL, beta_start=1, beta_steps=9, gamma_max_steps=5)
  loss = jax.jit(model.loss, static_argnames='train')
  at = lambda step, train: loss(params, {}, batch, rng=RNG, step=step, train=train)
  plain, (_, metrics) = at(0, False)
  np.testing.assert_allclose(plain, metrics['neg_elbo'].mean() / model.num_dims, rtol=1e-6)
  np.testing.assert_allclose(at(20, True)[0], plain, rtol=1e-6)
  early, (_, early_metrics) = at(4, True)
  gamma, kl = early_metrics['gamma'][0], early_metrics['kl_per_level'].mean(0)
  expected = metrics['nll'].mean() + 0.3 * (gamma * kl).sum()
  np.testing.assert_allclose(early, expected / model.num_dims, rtol=1e-5)
  np.testing.assert_allclose(gamma.mean(), 1, rtol=1e-5)
  assert np.ptp(gamma) > 0.1 and float(early_metrics['beta']) == pytest.approx(0.3)


@pytest.mark.slow
def test_binary_pictures_are_modelled_without_their_padding():
  model = dataclasses.replace(MODEL, image_channels=1, likelihood='bernoulli', target_crop=2)
  batch = {'image': jnp.asarray(tiny.images(model) // 128 * 255)}
  params, _ = jax.jit(model.init)(RNG, batch)
  # All output is zero, so every pixel that counts costs ln 2.
  params['top_down']['output_conv'] = jax.tree.map(
    jnp.zeros_like, params['top_down']['output_conv']
  )
  metrics = model.pruned(params, {}, batch, RNG, None)
  np.testing.assert_allclose(metrics['nll'], 16 * np.log(2), rtol=1e-6)
  pictures = np.array(model.sample(params, {}, RNG, 2))
  assert (pictures[:, 2:-2, 2:-2] == 128).all() and pictures.max(initial=0) == 128
  pictures[:, 2:-2, 2:-2] = 0
  assert not pictures.any()  # nothing is known of the padding, so it is black


def test_five_bit_draws_stay_below_the_highest_level():
  model = dataclasses.replace(MODEL, num_bits=5)
  out = 10 * np.random.default_rng(0).standard_normal((2, 8, 8, 20)).astype(np.float32)
  sample = model.draw(jnp.asarray(out), RNG)
  highest = float(model.scale_target(np.uint8(255)))
  assert float(sample.max()) == pytest.approx(highest) and highest < 0.95
  assert float(sample.min()) == -1


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'down_strides': (1, 4)}, 'model.up_n_blocks_per_res has 3 entries; it must have 1, or 2'),
    ({'down_strides': (1, 3, 1)}, 'model.image_size=8 must divide by 3, the product of model.down'),
    ({'down_filters': (8, 16, 8)}, 'model.down_filters: level 2 does not resample'),
    ({'up_filters': (16, 8, 8)}, 'model.up_filters: level 0 does not resample'),
    ({'up_n_blocks': (0,)}, 'config.model.up_n_blocks=(0,) must be at least 1'),
    ({'down_kernel_size': ()}, 'model.down_kernel_size has 0 entries'),
    ({'down_mid_filters_ratio': (0.01,)}, 'is less than one channel'),
    ({'image_channels': 1}, 'model.image_channels=1 must be 3'),
    ({'likelihood': 'dmol_torch'}, "config.model.likelihood='dmol_torch' must be one of 'dmol'"),
    ({'num_bits': 6}, 'config.model.num_bits=6 must be one of 8, 5'),
    ({'distribution_base': 'var'}, "config.model.distribution_base='var' must be one of"),
    ({'beta_schedule': 'cyclic'}, "config.model.beta_schedule='cyclic' must be one of"),
    ({'zdim': 0}, 'config.model.zdim=0 must be at least 1'),
    ({'output_temperature': 0.0}, 'model.output_temperature=0.0 must be positive'),
    ({'unroll': '0'}, "config.model.unroll='0' must be"),
  ],
  ids=str,
)
def test_values_are_checked(fields, message):
  with pytest.raises(UserError) as caught:
    dataclasses.replace(MODEL, **fields)
  assert message in str(caught.value)


def test_runs_are_maximal():
  """Blocks join a run unless something must happen between them, or they differ."""
  model = dataclasses.replace(
    MODEL,
    image_size=16,
    down_strides=(1, 4, 1, 4),
    down_n_blocks_per_res=(0, 2, 0, 1),
    down_kernel_size=(1, 3, 3, 3),
    up_n_blocks_per_res=(0, 0, 1, 0),
  )
  runs = [(run.name, run.levels) for run in model.down_runs]
  assert runs == [
    ('down_00_1x1', (0,)),
    ('down_01_4x4', (1, 1, 1, 2)),
    ('down_02_16x2', (3, 3)),
  ]
  runs = [(run.name, bool(run.skip), run.rate) for run in model.up_runs]
  assert runs == [
    ('up_00_16x1', True, 4),
    ('up_01_4x1', True, 1),
    ('up_02_4x1', False, 1),
    ('up_03_4x1', True, 4),
    ('up_04_1x1', True, 1),
  ]
  np.testing.assert_array_equal(model.level_of_groups, [0, 1, 1, 1, 2, 3, 3])
  np.testing.assert_allclose(
    model.temperature_ramp(0.6, 1.0), [0.6, 0.7, 0.7, 0.7, 0.8, 0.9, 0.9], rtol=1e-6
  )
