"""Parts that only VDVAE has: initial scales, and scanned runs of convolutional blocks."""

import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.models import hierarchy
from hvae_tpu.models.hierarchy import GroupDraw
from hvae_tpu.models.vdvae import VDVAE, network
from hvae_tpu.nn import layers
from tests.support import tiny

MODEL = tiny.SYSTEMS['vdvae'].model


@functools.cache
def initial(**fields):
  """Parameters of a network wide enough to measure scales; 3 encoder, 5 decoder blocks."""
  model = dataclasses.replace(
    MODEL, width=64, enc_blocks='8x1,8d8,1x1', dec_blocks='1x2,8m1,8x2', **fields
  )
  batch = {'image': jnp.zeros((1, 8, 8, 3), jnp.uint8)}
  return jax.jit(model.init)(jax.random.key(0), batch)[0]


def kernels(kernel_init: str) -> dict[str, np.ndarray]:
  leaves = jax.tree_util.tree_leaves_with_path(initial(kernel_init=kernel_init))
  names = {'/'.join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}
  assert all(not leaf.any() for name, leaf in names.items() if name.endswith(('bias', '_1', '_8')))
  return {name: leaf for name, leaf in names.items() if name.endswith('kernel')}


def expected_std(name: str, shape: tuple[int, ...], kernel_init: str) -> float:
  """Sections 2.5 and 2.6 of the two references: torch scales deviations, lecun variances."""
  fan_in = np.prod(shape[-4:-1])
  deep = {'encoder': 3, 'decoder': 5}[name.split('/')[0]] ** -0.5 if '/' in name[:8] else 1.0
  scaled = name.endswith(('resnet/c4/kernel', 'z_proj/kernel', 'block/c4/kernel'))
  if 'prior/c4' in name:
    return 0.0
  if kernel_init == 'torch':
    return (3 * fan_in) ** -0.5 * (deep if scaled else 1)
  return fan_in**-0.5 * (deep**0.5 if scaled and name.startswith('decoder') else 1)


@pytest.mark.slow
@pytest.mark.parametrize('kernel_init', ['torch', 'lecun'])
def test_initial_scales(kernel_init):
  by_name = kernels(kernel_init)
  assert len(by_name) == 36
  for name, kernel in by_name.items():
    expected = expected_std(name, kernel.shape, kernel_init)
    # The standard error of a deviation is below sqrt(1 / 2n); five of them.
    margin = 5 * (2 * kernel.size) ** -0.5
    assert kernel.std() == pytest.approx(expected, rel=margin), name
    if kernel_init == 'torch' and expected:
      assert np.abs(kernel).max() <= expected * 3**0.5 * (1 + 1e-6), name
  blocks = by_name['decoder/dec_01_8x3/enc/c2/kernel']
  assert np.any(blocks[0] != blocks[1])  # no block is a copy of another


def test_other_parameters_start_neutral():
  params = initial(kernel_init='torch')
  assert (params['gain'] == 1).all() and (params['bias'] == 0).all()


@pytest.mark.slow
def test_scanned_run_equals_a_python_loop():
  fields = dict(mid=4, width=8, kernel=3, config=MODEL.block_config, last_scale=0.6, zdim=2)
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
  x, acts, noise = normal(2, 4, 4, 8), normal(2, 4, 4, 8), normal(3, 2, 32)
  z, given = normal(3, 2, 4, 4, 2), jnp.array([True, False, True])
  stacked = layers.stack_blocks(network.DecoderBlock, 3, (nn.broadcast, 0))(**fields)
  keep = jnp.array([[True, True], [True, False], [False, False]])
  draws = GroupDraw(noise, z, given, None, keep)
  arguments = (x, acts, draws)
  params = stacked.init(jax.random.key(0), *arguments)['params']
  params = jax.tree.map(lambda p: p + 0.1 * normal(*p.shape), params)
  scanned, levels = jax.jit(stacked.apply)({'params': params}, *arguments)

  block = network.DecoderBlock(**fields)
  for i, (params_of_block, draw) in enumerate(layers.unstack((params, draws), 3)):
    x, level = block.apply({'params': params_of_block}, x, acts, draw)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
      level,
      jax.tree.map(lambda leaf, i=i: leaf[i], levels),
    )
  np.testing.assert_allclose(scanned, x, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(levels.group.z[0], z[0])
  np.testing.assert_array_equal(np.any(levels.kl > 0, axis=1), keep)


def loss_of(model, out, kl, train, monkeypatch):
  """The objective with `out` [B, H, W, C] and `kl` [B, zdim] in place of the network."""
  levels = [hierarchy.Level(None, kl, log_q=None, log_p=None)]
  monkeypatch.setattr(VDVAE, 'infer', lambda *_: (jnp.asarray(out), levels))
  image = np.zeros(out.shape, np.uint8)
  return model.loss({}, {}, {'image': image}, rng=None, step=0, train=train)[0]


@pytest.mark.parametrize(('train', 'weight'), [(False, 1), (True, 3)])
def test_objective(train, weight, monkeypatch):
  """Crop: no likelihood of the border. The KL has its weight in training only."""
  fields = dict(image_channels=1, likelihood='bernoulli', target_crop=2, kl_weight=3.0)
  model = dataclasses.replace(MODEL, **fields)
  out = np.random.default_rng(0).standard_normal((2, 8, 8, 1)).astype(np.float32)
  kl = jnp.array([[[1.0, 2.0], [3.0, 4.0]]])  # one level, two examples, two variates
  nll = np.logaddexp(0, out[:, 2:6, 2:6]).sum((1, 2, 3))
  expected = (nll + weight * np.array([3.0, 7.0])).mean() / 16
  np.testing.assert_allclose(loss_of(model, out, kl, train, monkeypatch), expected, rtol=1e-6)


def test_snapped_samples_lie_on_the_levels():
  model = dataclasses.replace(MODEL, num_bits=5, sample_snap=True)
  out = np.random.default_rng(0).standard_normal((2, 8, 8, 20)).astype(np.float32)
  assert not np.any(model.pictures(jnp.asarray(out), jax.random.key(0)) % 8)
  rounded = dataclasses.replace(model, sample_snap=False)
  assert np.any(rounded.pictures(jnp.asarray(out), jax.random.key(0)) % 8)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'likelihood': 'dmol'}, "config.model.likelihood='dmol' must be one of 'dmol_torch'"),
    ({'image_channels': 1}, 'model.image_channels=1 must be 3'),
    ({'num_bits': 6}, 'config.model.num_bits=6 must be one of 8, 5'),
    ({'kernel_init': 'he'}, "config.model.kernel_init='he' must be one of"),
    ({'unroll': '0'}, "config.model.unroll='0' must be"),
    ({'dtype': 'float16'}, "config.model.dtype='float16' must be one of"),
    ({'remat': 'all'}, "config.model.remat='all' must be one of"),
  ],
  ids=str,
)
def test_values_are_checked(fields, message):
  with pytest.raises(UserError) as caught:
    dataclasses.replace(MODEL, **fields)
  assert message in str(caught.value)
