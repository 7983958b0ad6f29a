"""Residual cells, and the table of their operations.

`Cell(x) = skip(x) + 0.1 SE(op_k(... op_1(x)))`; the first operation carries the stride.
"""

from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.models.nvae.convs import BatchNorm, Conv
from hvae_tpu.nn import distributions, layers

RESIDUAL_SCALE = 0.1
UP = -1  # a stride: twice the side
SE = ('none', 'sixteenth', 'half')


class Residual(NamedTuple):
  """An activation and a 3x3 convolution. `activation` is 'elu', 'bn_elu' or 'bn_swish'."""

  activation: str
  dilation: int = 1


class Inverted(NamedTuple):
  """An inverted residual: expansion, grouped convolution (groups 0: depthwise), projection."""

  expansion: int
  kernel: int
  groups: int = 0


OPS = {
  'res_elu': Residual('elu'),
  'res_bnelu': Residual('bn_elu'),
  'res_bnswish': Residual('bn_swish'),
  'res_bnswish5': Residual('bn_swish', dilation=2),  # a 5x5 field of view
  'mconv_e6k5g0': Inverted(6, 5),
  'mconv_e3k5g0': Inverted(3, 5),
  'mconv_e6k11g0': Inverted(6, 11),
  'mconv_e3k5g8': Inverted(3, 5, 8),
}


class Architecture(NamedTuple):
  """Operations of the cells at each place of the network."""

  enc: tuple[str, ...]
  pre: tuple[str, ...]
  dec: tuple[str, ...] = ('mconv_e6k5g0',)
  post: tuple[str, ...] = ('mconv_e3k5g0',)


def _same(op: str) -> Architecture:
  return Architecture(*[(op, op)] * 4)


_SWISH, _SWISH5 = 'res_bnswish', 'res_bnswish5'
ARCHITECTURES = {
  'res_elu': _same('res_elu'),
  'res_bnelu': _same('res_bnelu'),
  'res_bnswish': _same(_SWISH),
  'res_mbconv': Architecture((_SWISH, _SWISH), (_SWISH, _SWISH)),
  'mbconv_sep': Architecture(('mconv_e6k5g0',), ('mconv_e3k5g0',)),
  'mbconv_sep11': Architecture(('mconv_e6k11g0',), ('mconv_e3k5g0',), ('mconv_e6k11g0',)),
  'res53_mbconv': Architecture((_SWISH5, _SWISH), (_SWISH5, _SWISH)),
  'res35_mbconv': Architecture((_SWISH, _SWISH5), (_SWISH, _SWISH5)),
  'res55_mbconv': Architecture((_SWISH5, _SWISH5), (_SWISH5, _SWISH5)),
  'mbconv_res': Architecture(
    ('mconv_e6k5g0',), ('mconv_e3k5g0',), (_SWISH, _SWISH), (_SWISH, _SWISH)
  ),
  'mbconv_den': Architecture(('mconv_e6k5g0',), ('mconv_e3k5g8',), post=('mconv_e3k5g8',)),
}


class CellConfig(NamedTuple):
  """Settings shared by all cells (covers NVlabs/NVAE and mgp123/nvae).

  Attributes:
    train: whether batch normalisation uses the batch.
    norm: weight normalisation of samplers, combiners, stem and output.
    cell_norm: weight normalisation in cells and skips (never in inverted residuals).
    se: squeeze and excitation: hidden channels; 'none' leaves it out.
    shift_down: whether the four parts of a downsampling skip see four different grids.
    bias_up: whether an upsampling skip has a bias.
    multiplier: factor of the channels where the side halves.
    depthwise: form of depthwise convolutions, one of `cpu_kernels.FORMS`.
    dtype: dtype of the computation.
  """

  train: bool
  norm: str
  cell_norm: str
  se: str
  shift_down: bool
  bias_up: bool
  multiplier: int
  depthwise: str
  dtype: Any

  def conv(self, features: int, kernel: int, name: str) -> Conv:
    return Conv(features, kernel, self.norm, self.dtype, name=name)


def upsample_bilinear(x: Array) -> Array:
  """Interpolates [B, H, W, C] to [B, 2 H, 2 W, C]; the corners of both grids coincide."""
  rows, columns = (jnp.asarray(_interpolation(n), x.dtype) for n in x.shape[1:3])
  return jnp.einsum('oh,pw,bhwc->bopc', rows, columns, x)


def _interpolation(size: int) -> np.ndarray:
  """Returns the matrix [2 size, size] of linear interpolation along one axis."""
  matrix = np.zeros((2 * size, size), np.float32)
  for i in range(2 * size):
    place = i * (size - 1) / (2 * size - 1)
    low = int(place)
    matrix[i, low] += 1 - (place - low)
    matrix[i, min(low + 1, size - 1)] += place - low
  return matrix


class Linear(nn.Module):
  """A matrix product with PyTorch's initial weights."""

  features: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    limit = x.shape[-1] ** -0.5
    kernel = self.param('kernel', layers.uniform_fan_in(), (x.shape[-1], self.features))
    draw = lambda rng: distributions.uniform(rng, (self.features,), -limit, limit)
    return x @ kernel + self.param('bias', draw)


class SqueezeExcite(nn.Module):
  """Channels scaled by a function of their means."""

  size: str

  @nn.compact
  def __call__(self, x: Array) -> Array:
    channels = x.shape[-1]
    hidden = channels // 2 if self.size == 'half' else max(channels // 16, 4)
    mean = x.astype(jnp.float32).mean((1, 2))
    gate = Linear(channels, name='excite')(nn.relu(Linear(hidden, name='squeeze')(mean)))
    return x * jax.nn.sigmoid(gate)[:, None, None].astype(x.dtype)


class SkipDown(nn.Module):
  """Half the side, by four 1x1 convolutions that each see every second pixel."""

  features: int
  config: CellConfig

  @nn.compact
  def __call__(self, x: Array) -> Array:
    config, quarter = self.config, self.features // 4
    x, parts = layers.swish(x), []
    for i, (row, column) in enumerate(((0, 0), (1, 1), (0, 1), (1, 0))):
      part = x[:, row:, column:] if config.shift_down else x
      width = quarter if i < 3 else self.features - 3 * quarter
      conv = Conv(width, 1, config.cell_norm, config.dtype, stride=2, name=f'conv_{i + 1}')
      parts.append(conv(part))
    return jnp.concatenate(parts, axis=-1)


class ResidualOp(nn.Module):
  """A `Residual` operation."""

  op: Residual
  features: int
  stride: int
  config: CellConfig

  @nn.compact
  def __call__(self, x: Array) -> Array:
    config, activation = self.config, self.op.activation
    if activation != 'elu':
      x = BatchNorm(config.train, name='norm')(x)
    x = layers.swish(x) if activation == 'bn_swish' else nn.elu(x)
    x = layers.upsample_nearest(x, 2) if self.stride == UP else x
    return Conv(
      self.features,
      3,
      config.cell_norm,
      config.dtype,
      stride=max(self.stride, 1),
      dilation=self.op.dilation,
      from_data=activation == 'elu' and config.cell_norm == 'log',
      name='conv',
    )(x)


class InvertedOp(nn.Module):
  """An `Inverted` operation."""

  op: Inverted
  features: int
  stride: int
  config: CellConfig

  @nn.compact
  def __call__(self, x: Array) -> Array:
    config = self.config
    hidden = round(x.shape[-1] * self.op.expansion)
    conv = lambda features, kernel, name, **fields: Conv(
      features, kernel, 'none', config.dtype, bias=False, name=name, **fields
    )
    norm = lambda name: BatchNorm(config.train, name=name)
    x = layers.upsample_nearest(x, 2) if self.stride == UP else x
    x = conv(hidden, 1, 'expand')(norm('norm_0')(x))
    x = layers.swish(norm('norm_1')(x))
    stride, groups = max(self.stride, 1), self.op.groups
    fields = dict(stride=stride, groups=groups, depthwise=config.depthwise)
    x = conv(hidden, self.op.kernel, 'spatial', **fields)(x)
    x = layers.swish(norm('norm_2')(x))
    return norm('norm_3')(conv(self.features, 1, 'project')(x))


class Cell(nn.Module):
  """A residual cell; a stride of 2 or `UP` changes the channels by the multiplier."""

  ops: tuple[str, ...]
  stride: int
  config: CellConfig

  @nn.compact
  def __call__(self, x: Array) -> Array:
    config, channels = self.config, x.shape[-1]
    if self.stride == 1:
      features, skip = channels, x
    elif self.stride == UP:
      features = channels // config.multiplier
      conv = Conv(features, 1, config.cell_norm, config.dtype, bias=config.bias_up, name='skip')
      skip = conv(upsample_bilinear(x))
    else:
      features = channels * config.multiplier
      skip = SkipDown(features, config, name='skip')(x)
    h = x
    for k, name in enumerate(self.ops):
      op = OPS[name]
      kind = ResidualOp if isinstance(op, Residual) else InvertedOp
      h = kind(op, features, self.stride if k == 0 else 1, config, name=f'op_{k}')(h)
    if config.se != 'none':
      h = SqueezeExcite(config.se, name='se')(h)
    return skip + RESIDUAL_SCALE * h
