"""Parts that only NVAE has: cells, normalisation, flows, schedules of the KL, new statistics."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.systems.nvae import MGP123
from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.models.hierarchy import GroupDraw
from hvae_tpu.models.nvae import NVAE, cells, convs, flows, heads, network, objective, regularisers
from hvae_tpu.nn import distributions, layers
from tests.support import golden_files, tiny

MODEL = tiny.SYSTEMS['nvae'].model
# One group of two: the cheapest network that has statistics and a hierarchy.
SMALL = dataclasses.replace(MODEL, num_groups_per_scale=2, weight_decay_norm=0.0)
RNG = jax.random.key(0)


@functools.cache
def initial(model: NVAE):
  batch = {'image': jnp.asarray(tiny.images(model))}
  return *golden_files.quick_jit(model.init)(RNG, batch), batch


def step(model: NVAE, state, batch, params):
  loss = functools.partial(model.loss, rng=RNG, step=jnp.int32(3), train=True)
  return loss(params, state, batch)


def close(actual, expected, rtol=1e-5, atol=1e-5):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), actual, expected
  )


@pytest.mark.slow
def test_statistics_are_those_of_the_whole_batch_on_two_devices():
  params, state, batch = initial(SMALL)
  run = golden_files.quick_jit(functools.partial(step, SMALL))
  alone = run(state, batch, params)
  mesh = sharding.make_mesh(2, 1, jax.devices()[:2])
  spread = jax.device_put(batch, sharding.batch_sharding(mesh))
  everywhere = jax.device_put((state, params), sharding.replicated(mesh))
  close(run(everywhere[0], spread, everywhere[1]), alone, rtol=1e-4, atol=1e-4)
  moved = alone[1][0]['batch_stats']['bottom_up']['pre_0_0']['op_0']['norm']
  assert (moved['mean'] != 0).any() and (moved['var'] != 1).any()


@pytest.mark.slow
def test_recomputation_moves_the_statistics_once():
  """mgp123/nvae updates its statistics twice when it recomputes a cell."""
  params, state, batch = initial(SMALL)

  def moved(model):
    objective = lambda p: step(model, state, batch, p)
    run = golden_files.quick_jit(jax.grad(objective, has_aux=True))
    return run(params)[1][0]['batch_stats']

  close(moved(dataclasses.replace(SMALL, remat='blocks')), moved(SMALL))


def test_running_variance_is_unbiased():
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 1, 4)), jnp.float32)
  norm = convs.BatchNorm(train=True)
  variables = norm.init(RNG, x)
  y, moved = norm.apply(variables, x, mutable=['batch_stats'])
  stats = moved['batch_stats']
  np.testing.assert_allclose(stats['mean'], 0.05 * x.mean((0, 1, 2)), rtol=1e-5, atol=1e-7)
  expected = 0.95 + 0.05 * x.var((0, 1, 2), ddof=1)
  np.testing.assert_allclose(stats['var'], expected, rtol=1e-5)
  np.testing.assert_allclose(y.var((0, 1, 2)), np.ones(4), rtol=1e-3)


@pytest.mark.slow
def test_scanned_groups_equal_a_python_loop():
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
  fields = (('res_bnswish',), 1, 8, SMALL.cell_config(True), SMALL.latent_config(True))
  inputs = (normal(2, 2, 4, 4, 8), GroupDraw(normal(2, 2, 32)))
  stacked = layers.stack_blocks(network.DecGroup, 2, (0, 0))(*fields)
  s = normal(2, 4, 4, 8)
  variables = stacked.init(RNG, s, *inputs)
  run = functools.partial(stacked.apply, mutable=['batch_stats'])
  (scanned, levels), moved = golden_files.quick_jit(run)(variables, s, *inputs)
  block = network.DecGroup(*fields)
  for i, (of_group, inputs_of_group) in enumerate(layers.unstack((variables, inputs), 2)):
    (s, level), stats = block.apply(of_group, s, *inputs_of_group, mutable=['batch_stats'])
    close((level, stats), jax.tree.map(lambda leaf, i=i: leaf[i], (levels, moved)))
  close(s, scanned)


@pytest.mark.parametrize('name', cells.ARCHITECTURES)
@pytest.mark.parametrize('stride', [1, 2, cells.UP])
def test_cells_have_the_shape_of_their_stride(name, stride):
  config = MODEL.cell_config(train=True)
  for ops in set(cells.ARCHITECTURES[name]):
    cell = cells.Cell(ops, stride, config)
    x = jax.ShapeDtypeStruct((2, 8, 8, 16), jnp.float32)
    y, variables = jax.eval_shape(cell.init_with_output, RNG, x)
    shape = {1: (8, 16), 2: (4, 32), cells.UP: (16, 8)}[stride]
    assert y.shape == (2, shape[0], shape[0], shape[1])
    kernels = variables['params']['op_0']
    if ops[0].startswith('mconv'):
      op = cells.OPS[ops[0]]
      per_group = 1 if op.groups == 0 else 16 * op.expansion // op.groups
      expected = (op.kernel, op.kernel, per_group, 16 * op.expansion)
      assert kernels['spatial']['kernel'].shape == expected


@pytest.mark.parametrize(
  ('side', 'size', 'dtype', 'rtol'),
  [(6, 5, jnp.float32, 1e-5), (2, 11, jnp.float32, 1e-5), (6, 5, jnp.bfloat16, 1e-2)],
)
def test_depthwise_convolutions_are_the_same_in_both_forms(side, size, dtype, rtol):
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
  x, kernel, weights = normal(2, side, side, 3), normal(size, size, 1, 3), normal(2, side, side, 3)

  def run(form):
    conv = convs.Conv(3, size, 'none', dtype, bias=False, groups=0, depthwise=form)
    apply = lambda x, kernel: conv.apply({'params': {'kernel': kernel}}, x).astype(jnp.float32)
    gradient = jax.grad(lambda *args: (weights * apply(*args)).sum(), (0, 1))
    return golden_files.quick_jit(lambda *args: (apply(*args), gradient(*args)))(x, kernel)

  shifts, conv = run('shifts'), run('conv')
  scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(conv))
  close(shifts, conv, rtol=rtol, atol=rtol * scale)


def test_a_dilated_cell_sees_five_pixels():
  op = cells.ResidualOp(cells.OPS['res_bnswish5'], 1, 1, MODEL.cell_config(train=False))
  x = jnp.zeros((1, 9, 9, 1))
  variables = op.init(RNG, x)
  seen = jax.jacobian(lambda v: op.apply(variables, v)[0, 4, 4, 0])(x)[0, :, :, 0]
  rows, columns = np.nonzero(np.asarray(seen))
  assert set(rows) == set(columns) == {2, 4, 6}


@pytest.mark.slow
def test_first_weights_from_data_normalise_the_outputs():
  model = dataclasses.replace(SMALL, arch_instance='res_elu')
  batch = {'image': jnp.asarray(tiny.images(model))}
  params, state = golden_files.quick_jit(model.init)(RNG, batch)
  kernel, gain = (params['bottom_up']['pre_0_0']['op_1']['conv'][k] for k in ('kernel', 'log_gain'))
  start = np.log(np.asarray(convs.kernel_norm(kernel))[0, 0, 0] + 0.01)
  assert np.abs(gain - start).max() > 1e-3  # not where convolutions start without data
  loss, _ = golden_files.quick_jit(functools.partial(step, model))(state, batch, params)
  assert np.isfinite(loss)


@pytest.mark.parametrize('side', flows.SIDES)
def test_flows_are_autoregressive(side):
  """The Jacobian of a cell is triangular with ones, in the order of its mask."""
  config = flows.FlowConfig('log', False, side, 'conv', jnp.float32)
  z = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 3, 2)), jnp.float32)
  for mirrored in (False, True):
    cell = flows.FlowCell(mirrored, config)
    params = cell.init(RNG, z)
    jacobian = np.asarray(jax.jacobian(functools.partial(cell.apply, params))(z)).reshape(18, 18)
    order = np.arange(9).reshape(3, 3)
    order = order if side == 'left' else order[:, ::-1]
    order = order[::-1, ::-1] if mirrored else order
    # Within a pixel the channels keep their order.
    place = (2 * order[..., None] + np.arange(2)).reshape(-1)
    sorted_jacobian = jacobian[np.argsort(place)][:, np.argsort(place)]
    np.testing.assert_allclose(np.triu(sorted_jacobian), np.eye(18), atol=1e-6)
    assert np.abs(np.tril(sorted_jacobian, -1)).max() > 1e-4


@pytest.mark.slow
def test_singular_values_are_found():
  params, _, _ = initial(SMALL)
  vectors = regularisers.first_vectors(params, RNG)
  run = functools.partial(regularisers.spectral, side='left', iterations=200)
  total, _ = golden_files.quick_jit(run)(params, vectors)
  weights = regularisers.matrices(params, 'left').values()
  expected = sum(np.linalg.svd(np.asarray(w), compute_uv=False)[..., 0].sum() for w in weights)
  assert total == pytest.approx(expected, rel=2e-3)


def test_penalties_of_zeros_have_finite_gradients():
  penalty = lambda w: regularisers.power_penalty(w, jnp.zeros(6)).sum()
  assert np.isfinite(jax.grad(penalty)(jnp.ones((4, 6)))).all()
  leaves = {'kernel': jnp.zeros((3, 3, 2, 4)), 'log_gain': jnp.zeros(4)}
  assert np.isfinite(jax.grad(lambda x: convs.effective_kernel(x).sum())(leaves)['kernel']).all()


def test_weight_of_the_kl():
  model = dataclasses.replace(MODEL, kl_anneal_steps=10.0, kl_const_steps=2.0, kl_min=0.01)
  at = lambda model, step: float(objective.beta(model, jnp.int32(step)))
  assert [at(model, s) for s in (0, 7, 12, 50)] == pytest.approx([0.01, 0.5, 1, 1])
  stairs = dataclasses.replace(MODEL, kl_schedule='epochs', kl_warmup_epochs=4, steps_per_epoch=5)
  assert [at(stairs, s) for s in (0, 4, 5, 19, 20)] == pytest.approx([0, 0, 0.25, 0.75, 1])
  assert at(dataclasses.replace(stairs, kl_warmup_epochs=0), 0) == 1


@pytest.mark.slow
def test_balance_ends_with_the_warm_up():
  params, state, batch = initial(SMALL)
  early = dataclasses.replace(SMALL, kl_anneal_steps=6.0)
  late = dataclasses.replace(SMALL, kl_anneal_steps=1.0)
  run = lambda model: golden_files.quick_jit(functools.partial(step, model))(state, batch, params)
  (_, (_, first)), (loss, (_, last)) = run(early), run(late)
  assert np.ptp(first['kl_balance'][0]) > 0.01
  assert first['kl_balance'][0].mean() == pytest.approx(1, rel=1e-5)
  np.testing.assert_array_equal(last['kl_balance'], 1)
  assert loss == pytest.approx(last['neg_elbo'].mean(), rel=1e-5)


@pytest.mark.slow
def test_refresh_moves_only_what_generates():
  params, state, batch = initial(SMALL)
  run = lambda p, s: SMALL.refresh(p, s, RNG, 0.7, iterations=3, num=2)
  refreshed = golden_files.quick_jit(run)(params, state)['batch_stats']
  close(refreshed['bottom_up'], state['batch_stats']['bottom_up'], rtol=0, atol=0)
  moved = jax.tree.map(
    lambda a, b: np.any(a != b), refreshed['top_down'], dict(state['batch_stats']['top_down'])
  )
  assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize('name', ['gaussian', 'gaussian_mixture', 'logistic_mixture', 'normal'])
def test_drawn_pixels_have_the_mean_of_the_head(name):
  head = NVAE(likelihood=name, num_mixtures=3).head
  out = 0.3 * np.random.default_rng(0).standard_normal((1, 1, 1, head.out_channels))
  out = np.broadcast_to(out, (2**14, 1, 1, head.out_channels)).astype(np.float32)
  # Narrow components in the middle of the range, so that nothing is cut.
  out = out.reshape(2**14, 3, 3, 3).copy() if 'mixture' in name else out.reshape(2**14, 2, 3).copy()
  if 'mixture' in name:
    out[:, :, 2] -= 4.5
    out[:, :, 1] *= 0.3
    out[:, :, 1] += 0.0 if name == 'logistic_mixture' else 0.5
  else:
    out[:, 1] -= 3.5
    out[:, 0] += 0.0 if name == 'normal' else 0.5
  out = out.reshape(2**14, 1, 1, -1)
  sample = head.draw(jnp.asarray(out), RNG)
  assert 0 <= sample.min() and sample.max() <= 1
  np.testing.assert_allclose(sample.mean((0, 1, 2)), head.mean(out[:1])[0, 0, 0], atol=0.01)


def test_masses_sum_to_one_with_the_other_edge():
  """At 0.99 the level 254 also owns the upper tail, as published numbers have it."""
  levels = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1).repeat(3, -1)

  def total(edge):
    model = NVAE(num_mixtures=1, dmol_upper_edge=edge)
    out = np.zeros((256, 1, 1, 10), np.float32)
    out[..., 1::3], out[..., 2::3] = 0.95, -4.0
    out[..., 3::3] = 0.0
    x = model.scale_target(jnp.asarray(levels))
    only_red = distributions.mixture_by_colour(jnp.asarray(out), 1)
    mixture = only_red._replace(
      means=only_red.means.at[:].set(0.95), scales=only_red.scales.at[:].set(-4.0)
    )
    log_prob = distributions.dmol_log_prob(
      mixture._replace(coeffs=0 * mixture.coeffs), 2 * x - 1, half_bin=1 / 255, upper_edge=edge
    )
    return float(jnp.exp(log_prob / 3).sum())

  assert total(0.999) == pytest.approx(1, abs=1e-3)
  assert total(0.99) == pytest.approx(1.075, abs=1e-3)


def test_every_form_of_mgp123_is_a_field():
  model = NVAE(**MGP123)
  different = {name for name in MGP123 if getattr(NVAE(), name) != getattr(model, name)}
  assert different == set(MGP123) and model.likelihood in heads.HEADS


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'image_size': 10}, 'model.image_size=10 must divide by 4: it is halved 2 times'),
    ({'num_groups_per_scale': 0}, 'model.num_groups_per_scale=0 must be at least 1'),
    ({'group_divider': 0}, 'model.group_divider=0 must be at least 1'),
    ({'min_groups_per_scale': 9}, 'model.min_groups_per_scale=9 must not exceed'),
    ({'zdim': 0}, 'model.zdim=0 must be at least 1'),
    ({'num_preprocess_cells': 0}, 'model.num_preprocess_cells=0 must be at least 1'),
    ({'num_flows': -1}, 'model.num_flows=-1 must not be negative'),
    ({'arch_instance': 'res_mbconv9'}, "config.model.arch_instance='res_mbconv9' must be one of"),
    ({'kl_balance': 'cube'}, "config.model.kl_balance='cube' must be one of"),
    ({'image_channels': 1}, 'model.image_channels=1 must be 3'),
    ({'likelihood': 'logistic_mixture', 'num_bits': 5}, 'model.num_bits=5 must be 8'),
    ({'steps_per_epoch': 0}, 'model.steps_per_epoch=0 must be at least 1'),
    ({'output_temperature': 0.0}, 'model.output_temperature=0.0 must be positive'),
    ({'weight_decay_norm_init': 1.0}, 'which must be positive'),
    ({'unroll': '0'}, "config.model.unroll='0' must be"),
  ],
  ids=str,
)
def test_values_are_checked(fields, message):
  base = dict(num_latent_scales=2, weight_decay_norm=0.0)
  with pytest.raises(UserError) as caught:
    dataclasses.replace(MODEL, **{**base, **fields})
  assert message in str(caught.value)


def test_groups_per_scale():
  model = dataclasses.replace(
    MODEL, image_size=64, num_latent_scales=3, num_groups_per_scale=20, group_divider=2
  )
  assert [run.count for run in model.bottom_up_runs] == [20, 10, 5]
  names = [run.name for run in model.top_down_runs]
  assert names == ['dec_00_8x4', 'dec_01_16x10', 'dec_02_32x20']
  assert len(model.level_names) == 35 and model.level_names[0] == 'res008/group00'
