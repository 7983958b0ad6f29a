"""The Efficient-VDVAE network: a bottom-up encoder and a top-down hierarchy of stochastic blocks.

Shapes are [B, H, W, C]. Blocks and the residual stream between them compute in `dtype`; parameters
and all that enters a distribution, a divergence or a likelihood are float32. Submodules have the
names of the reference.
"""

from typing import Any, NamedTuple

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.efficient_vdvae import layout
from hvae_tpu.nn import distributions, layers
from hvae_tpu.nn.distributions import Level, Normal


class BlockConfig(NamedTuple):
  """What every block needs to know.

  Attributes:
    zdim: latent channels of a group.
    use_1x1: whether the first and last convolution of a cell are 1x1.
    base: 'std' or 'logstd', what the raw scale of a latent distribution means.
    beta: gradient smoothing of it.
    residual: whether the posterior is relative to the prior.
    legacy_kl: the KL of the reference's JAX form, for base 'logstd'.
    prior_scale: of the last kernel of the prior's network at initialisation.
    deep: of the last kernel of a residual cell; `projected` of the kernel that z enters by.
    dtype: of the computation.
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
    return layers.conv(features, kernel, layers.glorot_uniform(scale), self.dtype, name)

  def normal(self, features: Array) -> Normal:
    """Channels (mean, raw scale) -> the distribution. Reference: `GaussianLatentLayer`."""
    mean, raw = jnp.split(features.astype(jnp.float32), 2, axis=-1)
    if self.base == 'std':
      return Normal(mean, distributions.log_softplus(raw, self.beta))
    return Normal(mean, self.beta * raw)

  def kl(self, dist: Normal, prior: Normal) -> Array:
    """KL per element, nats."""
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
  def __call__(
    self,
    y: Array,
    skip: Array | None,
    noise: Array,
    z: Array | None,
    given: Array | None,
    temperature: Array | None,
    variates: Array | None,
  ) -> tuple[Array, Level]:
    # y, skip [B, h, w, width]; noise [B, h * w * zdim]; z [B, h, w, zdim]; given [] or [zdim];
    # variates [zdim].
    o, cells = self.config, self.cells
    prior_features = self._net(y, cells.ratio, 2.0, o.prior_scale, 'prior_net')
    residual, prior_features = jnp.split(prior_features, 2, axis=-1)
    prior = o.normal(o.conv(2 * o.zdim, 1, 'prior_projection')(prior_features))
    if skip is None:
      dist = prior.tempered(temperature)
    else:
      both = jnp.concatenate([y, skip], axis=-1)
      features = self._net(both, 0.5 * cells.ratio, 0.5, 1.0, 'posterior_net')
      dist = o.normal(o.conv(2 * o.zdim, 1, 'posterior_projection')(features))
      if o.residual:
        dist = Normal(dist.mean + prior.mean, dist.logstd + prior.logstd)
      if variates is not None:
        dist = Normal(*(jnp.where(variates, *pair) for pair in zip(dist, prior, strict=True)))
    drawn = dist.sample(noise.reshape(dist.mean.shape))
    z = drawn if z is None else jnp.where(given, z, drawn)
    kl = o.kl(dist, prior)
    if variates is not None:
      kl = jnp.where(variates, kl, 0.0)  # exactly: not what rounding leaves
    y = y + residual
    y = y + o.conv(cells.width, 1, 'z_projection', o.projected)(z)
    y = _residual_cells(y, cells, o)
    self.sow('intermediates', 'prior_dist', prior)
    self.sow('intermediates', 'kl', kl)
    return y, distributions.level(dist, prior, z, kl)

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
    x = layers.Patches(self.features, self.rate, init, self.dtype, name='conv')(x)
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
  """Images to one skip per level, the coarsest first."""

  config: Any

  @nn.compact
  def __call__(self, x: Array) -> list[Array]:
    c = self.config
    x = c.block_config.conv(c.input_conv_filters, c.input_kernel_size, 'input_conv')(x)
    skips = []
    for run in c.up_runs:
      stack = c.stack(UpBlock, run.count, in_axes=())
      x, skip = stack(run.cells, run.skip, c.block_config, name=run.name)(layers.split_rows(x))
      skips += layers.unstack(skip, run.count) if run.skip else []
      if run.rate > 1:
        x = Pool(run.pooled, run.rate, c.block_config.dtype, name=run.pool)(x)
    return skips[::-1]


class TopDown(nn.Module):
  """The same blocks infer (skips given) and generate (none)."""

  config: Any

  @nn.compact
  def __call__(
    self,
    skips: list[Array] | None,
    num: int,
    latents: tuple[Array, ...] | None = None,
    given: Array | None = None,
    temperature: Array | None = None,
    variates: Array | None = None,
    noise: tuple[Array, ...] | None = None,
  ) -> tuple[Array, list[Level]]:
    """Args as `Net`. Returns the output channels, and one stacked `Level` a run."""
    c, levels, first = self.config, [], 0
    sizes = [(run.count, run.res**2 * c.zdim) for run in c.down_runs]
    draws = layers.noise_of_runs(self.make_rng('sample'), num, sizes, noise)
    y = self._start(num)
    for run, drawn in zip(c.down_runs, draws, strict=True):
      mine = slice(first, first + run.count)
      part = lambda array, mine=mine: None if array is None else array[mine]
      if run.rate > 1:
        y = Unpool(run.cells.width, run.rate, c.block_config, name=run.unpool)(y)
      stack = c.stack(DownBlock, run.count, in_axes=(0,) * 6)
      y, level = stack(run.cells, c.block_config, name=run.name)(
        layers.split_rows(y),
        jnp.stack([skips[i] for i in run.levels]) if skips is not None else None,
        drawn,
        jnp.stack(latents[mine]) if latents is not None else None,
        part(given),
        part(temperature),
        part(variates),
      )
      levels.append(level)
      first += run.count
    y = y.astype(jnp.float32)
    init = layers.glorot_uniform()
    out = layers.conv(c.out_channels, c.output_kernel_size, init, jnp.float32, 'output_conv')(y)
    return out, levels

  def _start(self, num: int) -> Array:
    """The learned map that the hierarchy starts from."""
    c = self.config
    run = c.down_runs[0]
    side = run.res // run.rate
    shape = (side, side, c.down_filters[0])
    start = self.param('trainable_h', nn.initializers.zeros, shape)
    return jnp.broadcast_to(start.astype(c.block_config.dtype), (num, *shape))


class Net(nn.Module):
  """Images to output channels, or latents to output channels.

  `config` is the `EfficientVDVAE` dataclass; the network reads its fields and resolved settings.
  """

  config: Any

  @nn.compact
  def __call__(
    self,
    x: Array | None,
    num: int,
    latents: tuple[Array, ...] | None = None,
    given: Array | None = None,
    temperature: Array | None = None,
    variates: Array | None = None,
    noise: tuple[Array, ...] | None = None,
  ) -> tuple[Array, list[Level]]:
    """Runs the hierarchy once.

    Args:
      x: [B, H, W, C] scaled images, to infer; None, to generate.
      num: B.
      latents: z of every group, [B, h, w, zdim] each, or None.
      given: [L] or [L, V] bool; which of `latents` to use. The others are drawn.
      temperature: [L], multiplies the prior's standard deviations where x is None; None is 1.
      variates: [L, V] bool; the others are drawn from the prior although x is given; None is all.
      noise: what the groups are drawn with, [B, h, w, zdim] each; None: standard normal draws.

    Returns:
      Output channels [B, H, W, out_channels], float32, and per run a `Level` with leading [count].
    """
    skips = BottomUp(self.config, name='bottom_up')(x) if x is not None else None
    top_down = TopDown(self.config, name='top_down')
    return top_down(skips, num, latents, given, temperature, variates, noise)
