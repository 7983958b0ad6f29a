"""The Efficient-VDVAE network: a bottom-up encoder and a top-down hierarchy of stochastic blocks.

Shapes are [B, H, W, C]. Blocks and the residual stream between them compute in `dtype`; parameters
and all that enters a distribution, a divergence or a likelihood are float32. Submodules have the
names of the reference.
"""

from typing import Any, NamedTuple

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models import hierarchy
from hvae_tpu.models.efficient_vdvae import layout
from hvae_tpu.models.hierarchy import NO_OVERRIDES, GroupDraw, Level, Overrides
from hvae_tpu.nn import distributions, layers, rows
from hvae_tpu.nn.distributions import Normal


class BlockConfig(NamedTuple):
  """Settings that all blocks share.

  Attributes:
    zdim: latent channels of a group.
    use_1x1: whether the first and last convolution of a cell are 1x1.
    base: 'std' or 'logstd', the meaning of the raw scale of a latent distribution.
    beta: gradient smoothing of the scale.
    residual: whether the posterior is relative to the prior.
    legacy_kl: whether the KL is that of the reference's JAX form, for base 'logstd'.
    prior_scale: initial factor of the last kernel of the prior's network.
    deep: initial factor of the last kernel of a residual cell.
    projected: initial factor of the kernel that z enters by.
    dtype: dtype of the computation.
  """

  zdim: int
  use_1x1: bool
  base: str
  beta: float
  residual: bool
  legacy_kl: bool
  prior_scale: float
  deep: float
  projected: float
  dtype: Any

  def conv(self, features: int, kernel: int, name: str, scale: float = 1.0) -> nn.Module:
    return layers.Conv(features, kernel, layers.glorot_uniform(scale), self.dtype, name=name)

  def normal(self, features: Array) -> Normal:
    """Returns the distribution of channels (mean, raw scale). Reference: `GaussianLatentLayer`."""
    mean, raw = jnp.split(features.astype(jnp.float32), 2, axis=-1)
    if self.base == 'std':
      return Normal(mean, distributions.log_softplus(raw, self.beta))
    return Normal(mean, self.beta * raw)

  def kl(self, dist: Normal, prior: Normal) -> Array:
    """Returns the KL per element, nats."""
    kl = dist.kl(prior)
    if self.legacy_kl:
      # The reference's JAX form has log-scales without beta in the log term: no KL, may be < 0.
      kl += (1 / self.beta - 1) * (prior.logstd - dist.logstd)
    return kl


class Cell(nn.Module):
  """Pre-activation bottleneck: swish and convolution `layers + 2` times."""

  mid: int
  out: int
  kernel: int
  layers: int
  config: BlockConfig
  residual: bool = False
  last_scale: float = 1.0

  @nn.compact
  def __call__(self, x: Array) -> Array:
    ends, last = 1 if self.config.use_1x1 else self.kernel, self.layers + 1
    h = x
    for k in range(self.layers + 2):
      h = self.config.conv(
        self.out if k == last else self.mid,
        ends if k in (0, last) else self.kernel,
        f'conv_{k}',
        self.last_scale if k == last else 1.0,
      )(layers.swish(h))
    return x + h if self.residual else h


def _residual_cells(x: Array, cells: layout.Cells, config: BlockConfig) -> Array:
  for r in range(cells.count):
    x = Cell(
      int(cells.width * cells.ratio),
      cells.width,
      cells.kernel,
      cells.layers,
      config,
      residual=True,
      last_scale=config.deep,
      name=f'residual_block_{r}',
    )(x)
  return x


class UpBlock(nn.Module):
  """Residual cells, and a projection of their output for the top-down side."""

  cells: layout.Cells
  skip: int
  config: BlockConfig

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array | None]:
    x = _residual_cells(x, self.cells, self.config)
    skip = self.config.conv(self.skip, 1, 'skip_projection')(x) if self.skip else None
    return x, skip


class DownBlock(nn.Module):
  """One group: prior, posterior where a skip is given, residual cells."""

  cells: layout.Cells
  config: BlockConfig

  @nn.compact
  def __call__(self, y: Array, skip: Array | None, draw: GroupDraw) -> tuple[Array, Level]:
    # y, skip [B, h, w, width]
    c, cells = self.config, self.cells
    prior_features = self._net(y, cells.ratio, 2.0, c.prior_scale, 'prior_net')
    residual, prior_features = jnp.split(prior_features, 2, axis=-1)
    prior = c.normal(c.conv(2 * c.zdim, 1, 'prior_projection')(prior_features))
    if skip is None:
      dist = prior.tempered(draw.temperature)
    else:
      both = jnp.concatenate([y, skip], axis=-1)
      features = self._net(both, 0.5 * cells.ratio, 0.5, 1.0, 'posterior_net')
      posterior = c.normal(c.conv(2 * c.zdim, 1, 'posterior_projection')(features))
      if c.residual:
        mean, logstd = posterior.mean + prior.mean, posterior.logstd + prior.logstd
        posterior = Normal(mean, logstd)
      dist = draw.prune(posterior, prior)
    z = draw.replace_given(draw.sample(dist))
    kl = draw.prune_kl(c.kl(dist, prior))
    y = y + residual
    y = y + c.conv(cells.width, 1, 'z_projection', c.projected)(z)
    y = _residual_cells(y, cells, c)
    self.sow('intermediates', 'prior_dist', prior)
    self.sow('intermediates', 'kl', kl)
    return y, hierarchy.make_level(dist, prior, z, kl)

  def _net(self, x: Array, ratio: float, output_ratio: float, scale: float, name: str) -> Array:
    channels, cells = x.shape[-1], self.cells
    mid, out = int(channels * ratio), int(channels * output_ratio)
    return Cell(mid, out, cells.kernel, cells.layers, self.config, last_scale=scale, name=name)(x)


class Pool(nn.Module):
  """Convolution over blocks of rate x rate pixels, leaky ReLU."""

  features: int
  rate: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    init = layers.glorot_uniform()
    x = layers.Conv(self.features, self.rate, init, self.dtype, self.rate, name='conv')(x)
    return nn.leaky_relu(x, 0.1)


class Unpool(nn.Module):
  """1x1 convolution, leaky ReLU, nearest upsampling, and a learned map that is added."""

  features: int
  rate: int
  config: BlockConfig

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = nn.leaky_relu(self.config.conv(self.features, 1, 'conv')(x), 0.1)
    x = layers.upsample_nearest(x, self.rate)
    bias = self.param('scale_bias', nn.initializers.zeros, x.shape[1:])
    return x + bias.astype(x.dtype)


class BottomUp(nn.Module):
  """The bottom-up side: images to one skip per level, the coarsest first."""

  model: Any

  @nn.compact
  def __call__(self, x: Array) -> list[Array]:
    m, config = self.model, self.model.block_config
    x = config.conv(m.input_conv_filters, m.input_kernel_size, 'input_conv')(x)
    skips = []
    for run in m.up_runs:
      stack = m.stack(UpBlock, run.count, in_axes=())
      x, skip = stack(run.cells, run.skip, config, name=run.name)(rows.split_rows(x))
      skips += layers.unstack(skip, run.count) if run.skip else []
      if run.rate > 1:
        x = Pool(run.pooled, run.rate, config.dtype, name=run.pool)(x)
    return skips[::-1]


class TopDown(nn.Module):
  """The top-down side. The same blocks infer (skips given) and generate (none)."""

  model: Any

  @nn.compact
  def __call__(
    self, skips: list[Array] | None, num: int, overrides: Overrides
  ) -> tuple[Array, list[Level]]:
    """Returns the output channels, and one stacked `Level` a run."""
    m, config, levels = self.model, self.model.block_config, []
    sizes = [(run.count, run.res**2 * m.zdim) for run in m.down_runs]
    draws = hierarchy.draws_of_runs(self.make_rng('sample'), num, sizes, overrides)
    y = self._start(num)
    for run, draw in zip(m.down_runs, draws, strict=True):
      if run.rate > 1:
        y = Unpool(run.cells.width, run.rate, config, name=run.unpool)(y)
      block = m.stack(DownBlock, run.count, in_axes=(0, 0))(run.cells, config, name=run.name)
      skips_of_run = None if skips is None else jnp.stack([skips[i] for i in run.levels])
      y, level = block(rows.split_rows(y), skips_of_run, draw)
      levels.append(level)
    y = y.astype(jnp.float32)
    init = layers.glorot_uniform()
    out = layers.Conv(m.out_channels, m.output_kernel_size, init, jnp.float32, name='output_conv')(
      y
    )
    return out, levels

  def _start(self, num: int) -> Array:
    """Returns the learned map that the hierarchy starts from."""
    m, run = self.model, self.model.down_runs[0]
    side = run.res // run.rate
    shape = (side, side, m.down_filters[0])
    start = self.param('trainable_h', nn.initializers.zeros, shape)
    return jnp.broadcast_to(start.astype(m.block_config.dtype), (num, *shape))


class Net(nn.Module):
  """The whole network: images, or latents, to output channels.

  `model` is the `EfficientVDVAE` dataclass; the network reads its fields and layout only.
  """

  model: Any

  @nn.compact
  def __call__(
    self, x: Array | None, num: int, overrides: Overrides = NO_OVERRIDES
  ) -> tuple[Array, list[Level]]:
    """Infers from scaled images x [B, H, W, C], or generates B images where x is None.

    Returns output channels [B, H, W, out_channels], float32, and one stacked `Level` a run.
    """
    skips = BottomUp(self.model, name='bottom_up')(x) if x is not None else None
    return TopDown(self.model, name='top_down')(skips, num, overrides)
