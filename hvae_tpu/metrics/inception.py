"""The FID and the Inception score, with weights that the user has; nothing is downloaded.

The network is Inception-v3 as the FID uses it, by the names and shapes of its published conversion
to PyTorch (`pt_inception-2015-12-05-*.pth`): 1008 classes, average pools that leave out the
padding, and a maximum pool in the last block. The file is read without executing anything in it,
and the numbers carry its hash.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.metrics import distances
from hvae_tpu.metrics.measures import SCORES, Measure, batched
from hvae_tpu.storage import tensor_files

SIDE = 299
EPS = 1e-3  # of the batch normalisations
SPLITS = 10  # of the pictures, for the Inception score
Weights = Mapping[str, Array]

# Name -> (kernel height, width, inputs, outputs): the stem, then every block's convolutions.
STEM = {
  'Conv2d_1a_3x3': (3, 3, 3, 32),
  'Conv2d_2a_3x3': (3, 3, 32, 32),
  'Conv2d_2b_3x3': (3, 3, 32, 64),
  'Conv2d_3b_1x1': (1, 1, 64, 80),
  'Conv2d_4a_3x3': (3, 3, 80, 192),
}


def _block_35(inputs: int, pooled: int) -> dict[str, tuple[int, int, int, int]]:
  """Returns the convolutions of a block of 35 x 35 positions."""
  return {
    'branch1x1': (1, 1, inputs, 64),
    'branch5x5_1': (1, 1, inputs, 48),
    'branch5x5_2': (5, 5, 48, 64),
    'branch3x3dbl_1': (1, 1, inputs, 64),
    'branch3x3dbl_2': (3, 3, 64, 96),
    'branch3x3dbl_3': (3, 3, 96, 96),
    'branch_pool': (1, 1, inputs, pooled),
  }


def _block_17(mid: int) -> dict[str, tuple[int, int, int, int]]:
  """Returns the convolutions of a block of 17 x 17 positions."""
  return {
    'branch1x1': (1, 1, 768, 192),
    'branch7x7_1': (1, 1, 768, mid),
    'branch7x7_2': (1, 7, mid, mid),
    'branch7x7_3': (7, 1, mid, 192),
    'branch7x7dbl_1': (1, 1, 768, mid),
    'branch7x7dbl_2': (7, 1, mid, mid),
    'branch7x7dbl_3': (1, 7, mid, mid),
    'branch7x7dbl_4': (7, 1, mid, mid),
    'branch7x7dbl_5': (1, 7, mid, 192),
    'branch_pool': (1, 1, 768, 192),
  }


def _block_8(inputs: int) -> dict[str, tuple[int, int, int, int]]:
  """Returns the convolutions of a block of 8 x 8 positions."""
  return {
    'branch1x1': (1, 1, inputs, 320),
    'branch3x3_1': (1, 1, inputs, 384),
    'branch3x3_2a': (1, 3, 384, 384),
    'branch3x3_2b': (3, 1, 384, 384),
    'branch3x3dbl_1': (1, 1, inputs, 448),
    'branch3x3dbl_2': (3, 3, 448, 384),
    'branch3x3dbl_3a': (1, 3, 384, 384),
    'branch3x3dbl_3b': (3, 1, 384, 384),
    'branch_pool': (1, 1, inputs, 192),
  }


BLOCKS = {
  'Mixed_5b': _block_35(192, 32),
  'Mixed_5c': _block_35(256, 64),
  'Mixed_5d': _block_35(288, 64),
  'Mixed_6a': {
    'branch3x3': (3, 3, 288, 384),
    'branch3x3dbl_1': (1, 1, 288, 64),
    'branch3x3dbl_2': (3, 3, 64, 96),
    'branch3x3dbl_3': (3, 3, 96, 96),
  },
  'Mixed_6b': _block_17(128),
  'Mixed_6c': _block_17(160),
  'Mixed_6d': _block_17(160),
  'Mixed_6e': _block_17(192),
  'Mixed_7a': {
    'branch3x3_1': (1, 1, 768, 192),
    'branch3x3_2': (3, 3, 192, 320),
    'branch7x7x3_1': (1, 1, 768, 192),
    'branch7x7x3_2': (1, 7, 192, 192),
    'branch7x7x3_3': (7, 1, 192, 192),
    'branch7x7x3_4': (3, 3, 192, 192),
  },
  'Mixed_7b': _block_8(1280),
  'Mixed_7c': _block_8(2048),
}
CONVS = STEM | {f'{b}.{name}': shape for b, part in BLOCKS.items() for name, shape in part.items()}
CLASSES, WIDTH = 1008, 2048


def shapes() -> dict[str, tuple[int, ...]]:
  """Returns the shape of every tensor that a file must have, in the layout of PyTorch."""
  tensors = {'fc.weight': (CLASSES, WIDTH)}
  for name, (height, width, inputs, outputs) in CONVS.items():
    tensors[f'{name}.conv.weight'] = (outputs, inputs, height, width)
    for part in ('weight', 'bias', 'running_mean', 'running_var'):
      tensors[f'{name}.bn.{part}'] = (outputs,)
  return tensors


class Network(NamedTuple):
  """Weights by the names of `shapes`, and the beginning of the `sha256` of their file."""

  weights: Weights
  sha256: str


def open_weights(path: str) -> Network:
  """Reads a file of weights.

  Raises:
    UserError: it cannot be read, or lacks a tensor of the right shape.
  """
  file = tensor_files.read(path)
  tree = file.tree if isinstance(file.tree, dict) else {}
  for name, shape in shapes().items():
    actual = getattr(tree.get(name), 'shape', None)
    if actual != shape:
      raise UserError(
        f'config.quality.inception={path}: {name} must have the shape {list(shape)}, found '
        f'{"nothing" if actual is None else list(actual)}; give the FID weights of Inception-v3'
      )
  weights = {name: np.asarray(tree[name], np.float32) for name in shapes()}
  return Network(weights, file.sha256[:12])


def measures(network: Network) -> list[Measure]:
  """Returns the FID (`frechet[inception-<hash>]`), its relatives, and the Inception score."""
  name = f'inception-{network.sha256}'
  apply = lambda part: batched(lambda images: forward(network.weights, images)[part])
  score = {'inception_score': lambda true, made: _score(made)}
  return [Measure(name, apply(0), SCORES), Measure(name, apply(1), score)]


def _score(probabilities: np.ndarray) -> float:
  """Returns the Inception score, mean over parts of the pictures."""
  parts = np.array_split(probabilities, min(SPLITS, max(1, len(probabilities) // 100)))
  return float(np.mean([distances.inception_score(part) for part in parts]))


def forward(weights: Weights, images: Array) -> tuple[Array, Array]:
  """Computes features [B, 2048] and class probabilities [B, 1008] of uint8 [B, H, W, 1 or 3]."""
  x = jnp.broadcast_to(images.astype(jnp.float32), (*images.shape[:-1], 3))
  x = jax.image.resize(x / 127.5 - 1, (len(x), SIDE, SIDE, 3), 'linear', antialias=False)

  def conv(x: Array, name: str, stride: int = 1, pad: bool = True) -> Array:
    get = lambda part: weights[f'{name}.{part}']
    kernel = jnp.transpose(get('conv.weight'), (2, 3, 1, 0))
    pads = [(n // 2 if pad else 0,) * 2 for n in kernel.shape[:2]]
    x = jax.lax.conv_general_dilated(
      x, kernel, (stride, stride), pads, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    scale = get('bn.weight') * jax.lax.rsqrt(get('bn.running_var') + EPS)
    return jax.nn.relu((x - get('bn.running_mean')) * scale + get('bn.bias'))

  x = conv(x, 'Conv2d_1a_3x3', 2, pad=False)
  x = conv(x, 'Conv2d_2a_3x3', pad=False)
  x = _max_pool(conv(x, 'Conv2d_2b_3x3'), 2, 'VALID')
  x = conv(conv(x, 'Conv2d_3b_1x1'), 'Conv2d_4a_3x3', pad=False)
  x = _max_pool(x, 2, 'VALID')
  for block, names in BLOCKS.items():
    x = _block(conv, block, names, x)
  features = x.mean((1, 2))
  # The original score leaves out the bias of the last layer.
  return features, jax.nn.softmax(features @ weights['fc.weight'].T)


def _block(conv: Callable[..., Array], block: str, names: Mapping[str, tuple], x: Array) -> Array:
  """Applies the branches of a block, and joins them in the order of their names in `BLOCKS`."""
  shrinks = block in ('Mixed_6a', 'Mixed_7a')
  parts, chains = [], {}
  for name in names:
    stem, _, place = name.rpartition('_')
    chains.setdefault(stem if place[0].isdigit() else name, []).append(name)
  for chain in chains.values():
    if chain[0] == 'branch_pool':
      pooled = _max_pool(x, 1, 'SAME') if block == 'Mixed_7c' else _average_pool(x)
      parts.append(conv(pooled, f'{block}.branch_pool'))
      continue
    y = x
    for i, name in enumerate(chain):
      if name.endswith(('a', 'b')):  # the last two see the same
        parts.append(conv(y, f'{block}.{name}'))
        continue
      last = shrinks and i == len(chain) - 1
      y = conv(y, f'{block}.{name}', 2 if last else 1, pad=not last)
    if not chain[-1].endswith(('a', 'b')):
      parts.append(y)
  return jnp.concatenate([*parts, _max_pool(x, 2, 'VALID')] if shrinks else parts, axis=-1)


def _max_pool(x: Array, stride: int, padding: str) -> Array:
  window, strides = (1, 3, 3, 1), (1, stride, stride, 1)
  return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)


def _average_pool(x: Array) -> Array:
  """Averages over 3 x 3 positions, leaving out the padding."""
  total = lambda v: jax.lax.reduce_window(v, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), 'SAME')
  return total(x) / total(jnp.ones((1, *x.shape[1:3], 1)))
