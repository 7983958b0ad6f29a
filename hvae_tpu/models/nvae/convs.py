"""Convolutions with weight normalisation, and batch normalisation. Images are NHWC.

The kernel that a convolution applies is a pure function of its parameters (`effective_kernel`). So
the regularisers of the whole network need nothing but the parameter tree.
"""

from collections.abc import Mapping
import math
from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.nn import cpu_kernels, distributions, layers

EPS = 1e-5
MOMENTUM = 0.05  # weight of a batch in the running statistics
NORMS = ('log', 'gain', 'none')


class Mask(NamedTuple):
  """The inputs that an autoregressive convolution may see.

  Attributes:
    strict: whether a channel must not see itself.
    mirrored: whether the order of rows and columns is reversed.
    side: the earlier part of the centre row, 'left' or 'right'.
  """

  strict: bool
  mirrored: bool
  side: str

  def array(self, shape: tuple[int, ...]) -> np.ndarray:
    """Returns zeros and ones for a kernel [k, k, inputs, outputs]; one input: depthwise."""
    size, _, inputs, outputs = shape
    centre = (size - 1) // 2
    mask = np.zeros(shape, np.float32)
    mask[:centre] = 1
    earlier = slice(None, centre) if self.side == 'left' else slice(centre + 1, None)
    mask[centre, earlier] = 1
    if inputs == 1:
      mask[centre, centre] = 0 if self.strict else 1
    else:
      blocks = max(inputs, outputs) // min(inputs, outputs)
      i, o = np.arange(inputs)[:, None], np.arange(outputs)
      i, o = (i, o // blocks) if outputs >= inputs else (i // blocks, o)
      mask[centre, centre] = i < o if self.strict else i <= o
    # The order of the channels stays.
    return mask[::-1, ::-1] if self.mirrored else mask


def kernel_norm(kernel: Array) -> Array:
  """Returns the length of every output channel's weights: [..., k, k, I, O] -> [..., 1, 1, 1, O].

  The gradient is zero where all weights are zero.
  """
  squares = jnp.square(kernel).sum((-4, -3, -2), keepdims=True)
  return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)


def effective_kernel(leaves: Mapping[str, Array], mask: Mask | None = None) -> Array:
  """Returns the kernel that a convolution applies, [..., k, k, I, O].

  Args:
    leaves: parameters of the convolution: `kernel`, and `log_gain` [..., O] (the official form),
      `gain` [..., O] (PyTorch's weight normalisation) or neither.
    mask: factor of the kernel; None is 1.
  """
  kernel = leaves['kernel']
  if mask is not None:
    kernel = kernel * mask.array(kernel.shape[-4:])
  spread = lambda gain: gain[..., None, None, None, :]
  if 'log_gain' in leaves:
    return spread(jnp.exp(leaves['log_gain'])) * (kernel / (kernel_norm(kernel) + 1e-5))
  if 'gain' in leaves:
    norm = kernel_norm(kernel)
    return spread(leaves['gain']) * (kernel / jnp.where(norm > 0, norm, 1.0))
  return kernel


class Conv(nn.Module):
  """A convolution with symmetric zero padding, whatever its stride, as PyTorch pads.

  Attributes:
    norm: weight normalisation, see `effective_kernel`.
    groups: number of groups; 0 is depthwise.
    depthwise: form of a depthwise convolution, one of `cpu_kernels.FORMS`.
    initial_gain: factor of the initial gain.
    from_data: whether outputs start with mean 0 and deviation 0.2 on the batch of `init`.
  """

  features: int
  kernel: int
  norm: str
  dtype: Any
  bias: bool = True
  stride: int = 1
  dilation: int = 1
  groups: int = 1
  depthwise: str = 'conv'
  mask: Mask | None = None
  initial_gain: float = 1.0
  from_data: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    groups = self.groups or x.shape[-1]
    shape = (self.kernel, self.kernel, x.shape[-1] // groups, self.features)
    leaves = {'kernel': self.param('kernel', layers.uniform_fan_in(), shape)}
    start = self._data_start(x, leaves) if self.from_data and self.is_initializing() else None
    if self.norm == 'log':
      leaves['log_gain'] = self.param('log_gain', lambda _: self._log_gain(leaves, start))
    elif self.norm == 'gain':
      leaves['gain'] = self.param('gain', lambda _: kernel_norm(leaves['kernel'])[0, 0, 0])
    y = self._apply(x, effective_kernel(leaves, self.mask))
    if not self.bias:
      return y
    return cpu_kernels.add_bias(y, self.param('bias', lambda rng: self._bias(rng, shape, start)))

  def _apply(self, x: Array, kernel: Array) -> Array:
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    if self.kernel == 1:
      return cpu_kernels.pointwise_matmul(x[:, :: self.stride, :: self.stride], kernel[0, 0])
    if not self.groups and self.stride == 1 and self.depthwise == 'shifts':
      return cpu_kernels.convolve_depthwise(x, kernel)
    pad = (self.kernel - 1) // 2 * self.dilation
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      window_strides=(self.stride, self.stride),
      padding=[(pad, pad), (pad, pad)],
      rhs_dilation=(self.dilation, self.dilation),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=self.groups or x.shape[-1],
    )

  def _log_gain(self, leaves: Mapping[str, Array], start: tuple[Array, Array] | None) -> Array:
    if start is not None:
      return -jnp.log(start[1] + EPS)
    kernel = leaves['kernel']
    kernel = kernel if self.mask is None else kernel * self.mask.array(kernel.shape)
    return jnp.log(kernel_norm(kernel)[0, 0, 0] + 0.01) + math.log(self.initial_gain)

  def _bias(self, rng: Array, shape: tuple[int, ...], start: tuple[Array, Array] | None) -> Array:
    if start is not None:
      return -start[0] / (start[1] + EPS)
    limit = math.prod(shape[:-1]) ** -0.5
    return distributions.uniform(rng, (self.features,), -limit, limit)

  def _data_start(self, x: Array, leaves: Mapping[str, Array]) -> tuple[Array, Array]:
    """Returns mean and 5 deviations of the outputs of a normalised kernel without bias, [O]."""
    kernel = leaves['kernel']
    out = self._apply(x, kernel / (kernel_norm(kernel) + 1e-5)).astype(jnp.float32)
    return out.mean((0, 1, 2)), 5 * out.std((0, 1, 2), ddof=1)


class BatchNorm(nn.Module):
  """Batch normalisation over the whole batch, on all devices.

  The running variance is unbiased, as in PyTorch. With `train`, the batch normalises and moves the
  running statistics. Otherwise the running statistics normalise.
  """

  train: bool

  @nn.compact
  def __call__(self, x: Array) -> Array:
    channels = (x.shape[-1],)
    scale = self.param('scale', nn.initializers.ones, channels)
    bias = self.param('bias', nn.initializers.zeros, channels)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, channels)
    var = self.variable('batch_stats', 'var', jnp.ones, channels)
    y = x.astype(jnp.float32)
    if self.train:
      batch_mean = y.mean((0, 1, 2))
      batch_var = jnp.square(y - batch_mean).mean((0, 1, 2))
      if not self.is_initializing() and self.is_mutable_collection('batch_stats'):
        count = y.size // y.shape[-1]
        unbiased = batch_var * (count / max(count - 1, 1))
        mean.value = (1 - MOMENTUM) * mean.value + MOMENTUM * batch_mean
        var.value = (1 - MOMENTUM) * var.value + MOMENTUM * unbiased
      y = (y - batch_mean) * (jax.lax.rsqrt(batch_var + EPS) * scale) + bias
    else:
      y = (y - mean.value) * (jax.lax.rsqrt(var.value + EPS) * scale) + bias
    return y.astype(x.dtype)
