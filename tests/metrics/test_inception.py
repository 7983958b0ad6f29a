"""The network of the FID, with random weights: the numbers of a PyTorch form of it; refusals.

`golden/inception.npz` has what an independent PyTorch program computes of `picture` with the
weights that `random_weights` makes; the network's own weights could not be had.
"""

import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from hvae_tpu.errors import UserError
from hvae_tpu.metrics import inception

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'inception.npz'


def random_weights() -> dict[str, np.ndarray]:
  """Every tensor of the file, scaled so that activations stay of one size."""
  rng, weights = np.random.default_rng(0), {}
  for name, shape in inception.shapes().items():
    if len(shape) > 1:
      weights[name] = rng.standard_normal(shape, np.float32) * np.float32(
        (2 / np.prod(shape[1:])) ** 0.5
      )
    elif name.endswith(('bn.weight', 'running_var')):
      weights[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
    else:
      weights[name] = 0.1 * rng.standard_normal(shape, np.float32)
  return weights


def picture() -> np.ndarray:
  """Makes a picture that must be enlarged, uint8 [1, 40, 56, 3]."""
  return np.random.default_rng(1).integers(0, 256, (1, 40, 56, 3)).astype(np.uint8)


def test_the_numbers_of_pytorch():
  """Float32 sums over up to 4,000 products, 94 layers deep: a few 1e-5 of the largest."""
  with jax.default_matmul_precision('highest'):
    features, probabilities = jax.jit(inception.forward)(random_weights(), picture())
  with np.load(GOLDEN) as golden:
    expected = golden['features']
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(probabilities, golden['probabilities'], rtol=2e-3, atol=1e-7)


def test_shapes_of_the_file():
  """94 convolutions with their normalisation, and the last layer."""
  shapes = inception.shapes()
  assert len(inception.CONVS) == 94 and len(shapes) == 5 * 94 + 1
  assert shapes['Mixed_6c.branch7x7dbl_4.conv.weight'] == (160, 160, 7, 1)
  trained = [s for n, s in shapes.items() if 'running' not in n and not n.startswith('fc')]
  assert sum(int(np.prod(s)) for s in trained) == 21_785_568  # of Inception-v3 below its last layer


def test_files_of_other_networks_are_refused(tmp_path):
  save_file({'fc.weight': np.zeros((10, 2048), np.float32)}, tmp_path / 'x.safetensors')
  text = r'fc.weight must have the shape \[1008, 2048\], found \[10, 2048\]; give the FID weights'
  with pytest.raises(UserError, match=text):
    inception.open_weights(str(tmp_path / 'x.safetensors'))
  with pytest.raises(UserError, match='none.pth cannot be read'):
    inception.open_weights(str(tmp_path / 'none.pth'))
