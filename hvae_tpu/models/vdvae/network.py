"""The VDVAE network: a bottom-up encoder and a top-down hierarchy of stochastic blocks.

Shapes are [B, H, W, C]. Blocks and the residual stream between them compute in `dtype`; parameters
and all that enters a distribution, a divergence or a likelihood are float32.
"""

from typing import Any, NamedTuple

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models import hierarchy
from hvae_tpu.models.hierarchy import NO_OVERRIDES, GroupDraw, Level, Overrides
from hvae_tpu.models.vdvae import layout
from hvae_tpu.nn import distributions, layers, rows


class BlockConfig(NamedTuple):
  """Settings that all blocks share.

  Attributes:
    gelu_approximate: whether GELU has its tanh form.
    scheme: initialisation of kernels, 'torch' or 'lecun'.
    dtype: dtype of the computation.
  """

  gelu_approximate: bool
  scheme: str
  dtype: Any

  def initializer(self, scale: float = 1.0):
    """Returns the initialiser of a kernel.

    For 'torch' it is uniform, its deviation times `scale`. For 'lecun' it is truncated normal, its
    variance times `scale`.
    """
    if self.scheme == 'torch':
      return layers.uniform_fan_in(scale)
    if scale == 0:
      return nn.initializers.zeros_init()
    return nn.initializers.variance_scaling(scale, 'fan_in', 'truncated_normal')


class Block(nn.Module):
  """Pre-activation bottleneck: GELU and convolution four times, 1x1, kxk, kxk, 1x1.

  `last_scale` scales the last kernel at initialisation (`BlockConfig.initializer`).
  """

  mid: int
  out: int
  kernel: int
  config: BlockConfig
  residual: bool = False
  last_scale: float = 1.0

  @nn.compact
  def __call__(self, x: Array) -> Array:
    def step(h, features, kernel, name, scale=1.0):
      h = layers.gelu(h, self.config.gelu_approximate)
      init = self.config.initializer(scale)
      return layers.Conv(features, kernel, init, self.config.dtype, name=name)(h)

    h = step(x, self.mid, 1, 'c1')
    h = step(h, self.mid, self.kernel, 'c2')
    h = step(h, self.mid, self.kernel, 'c3')
    h = step(h, self.out, 1, 'c4', self.last_scale)
    return x + h if self.residual else h


class EncoderBlock(nn.Module):
  """A residual block. Its carry also holds the block's input: the skip of a run that pools."""

  mid: int
  width: int
  kernel: int
  config: BlockConfig
  last_scale: float

  @nn.compact
  def __call__(self, carry: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
    x, _ = carry
    block = Block(
      self.mid,
      self.width,
      self.kernel,
      self.config,
      residual=True,
      last_scale=self.last_scale,
      name='block',
    )
    return (block(x), x), None


class DecoderBlock(nn.Module):
  """One group: prior, posterior where the encoder's activations are given, residual block."""

  mid: int
  width: int
  kernel: int
  config: BlockConfig
  last_scale: float
  zdim: int

  @nn.compact
  def __call__(self, x: Array, acts: Array | None, draw: GroupDraw) -> tuple[Array, Level]:
    # x, acts [B, h, w, width]
    def block(out, name, **kwargs):
      return Block(self.mid, out, self.kernel, self.config, name=name, **kwargs)

    features = block(2 * self.zdim + self.width, 'prior', last_scale=0.0)(x)
    prior, skip = _normal(features[..., : 2 * self.zdim]), features[..., 2 * self.zdim :]
    if acts is None:
      dist = prior.tempered(draw.temperature)
    else:
      posterior = _normal(block(2 * self.zdim, 'enc')(jnp.concatenate([x, acts], axis=-1)))
      dist = draw.prune(posterior, prior)
    z = draw.replace_given(draw.sample(dist))
    kl = draw.prune_kl(dist.kl(prior))
    init = self.config.initializer(self.last_scale)
    x = x + skip
    x = x + layers.Conv(self.width, 1, init, self.config.dtype, name='z_proj')(z)
    x = block(self.width, 'resnet', residual=True, last_scale=self.last_scale)(x)
    self.sow('intermediates', 'prior_dist', prior)
    self.sow('intermediates', 'kl', kl)
    return x, hierarchy.make_level(dist, prior, z, kl)


def _normal(features: Array) -> distributions.Normal:
  mean, logstd = jnp.split(features.astype(jnp.float32), 2, axis=-1)
  return distributions.Normal(mean, logstd)


def _block_fields(model: Any, run: layout.Run, num_blocks: int) -> dict[str, Any]:
  """Returns the fields of the blocks of a run, and the name of the run."""
  width = model.width_at(run.res)
  deep = (1 / num_blocks) ** 0.5
  return dict(
    mid=int(width * model.bottleneck_multiple),
    width=width,
    kernel=3 if run.res > 2 else 1,
    config=model.block_config,
    last_scale=deep,
    name=run.name,
  )


class Encoder(nn.Module):
  """The bottom-up side: images to one map of activations per resolution."""

  model: Any

  @nn.compact
  def __call__(self, x: Array) -> dict[int, Array]:
    m, config = self.model, self.model.block_config
    runs, num_blocks = m.encoder_runs, sum(run.count for run in m.encoder_runs)
    x = layers.Conv(m.width, 3, config.initializer(), config.dtype, name='in_conv')(x)
    acts = {x.shape[1]: x}
    for run in runs:
      fields = _block_fields(m, run, num_blocks)
      if m.kernel_init == 'lecun':
        fields['last_scale'] = 1.0  # vdvae-jax does not scale the encoder
      stack = m.stack(EncoderBlock, run.count, in_axes=())
      x = rows.split_rows(x)
      (x, before_last), _ = stack(**fields)((x, x))
      acts[run.res] = before_last if run.rate > 1 else x
      if run.rate > 1:
        x = layers.average_pool(x, run.rate)
        x = layers.pad_channels(x, m.width_at(x.shape[1]))
        acts[x.shape[1]] = x
    return acts


class Decoder(nn.Module):
  """The top-down side. The same blocks infer (activations given) and generate (none)."""

  model: Any

  @nn.compact
  def __call__(
    self, acts: dict[int, Array] | None, num: int, overrides: Overrides
  ) -> tuple[Array, list[Level]]:
    """Returns the last map [B, H, W, width], and one stacked `Level` a run."""
    m, dtype = self.model, self.model.block_config.dtype
    num_blocks = sum(run.count for run in m.decoder_runs)
    sizes = [(run.count, run.res**2 * m.zdim) for run in m.decoder_runs]
    draws = hierarchy.draws_of_runs(self.make_rng('sample'), num, sizes, overrides)
    maps, levels = self._start_maps(num), []
    for run, draw in zip(m.decoder_runs, draws, strict=True):
      width = m.width_at(run.res)
      x = maps.get(run.res, jnp.zeros((num, run.res, run.res, width), dtype))
      if run.mixin is not None:
        x += layers.upsample_nearest(maps[run.mixin][..., :width], run.res // run.mixin)
      stack = m.stack(DecoderBlock, run.count, in_axes=(nn.broadcast, 0))
      block = stack(zdim=m.zdim, **_block_fields(m, run, num_blocks))
      acts_of_run = None if acts is None else acts[run.res]
      maps[run.res], level = block(rows.split_rows(x), acts_of_run, draw)
      levels.append(level)
    return maps[m.image_size], levels

  def _start_maps(self, num: int) -> dict[int, Array]:
    """Returns the learned maps that coarse resolutions start from (`bias_xs` of the release)."""
    m, maps = self.model, {}
    for res in sorted({run.res for run in m.decoder_runs}):
      if res <= m.no_bias_above:
        shape = (res, res, m.width_at(res))
        start = self.param(f'start_{res}', nn.initializers.zeros, shape)
        maps[res] = jnp.broadcast_to(start.astype(m.block_config.dtype), (num, *shape))
    return maps


class Net(nn.Module):
  """The whole network: images, or latents, to output channels.

  `model` is the `VDVAE` dataclass; the network reads its fields and layout only.
  """

  model: Any

  @nn.compact
  def __call__(
    self, x: Array | None, num: int, overrides: Overrides = NO_OVERRIDES
  ) -> tuple[Array, list[Level]]:
    """Infers from scaled images x [B, H, W, C], or generates B images where x is None.

    Returns output channels [B, H, W, out_channels], float32, and one stacked `Level` a run.
    """
    m = self.model
    acts = Encoder(m, name='encoder')(x) if x is not None else None
    px, levels = Decoder(m, name='decoder')(acts, num, overrides)
    gain = self.param('gain', nn.initializers.ones, (m.width,))
    bias = self.param('bias', nn.initializers.zeros, (m.width,))
    px = px.astype(jnp.float32) * gain + bias
    self.sow('intermediates', 'px_z', px)
    out = layers.Conv(
      m.out_channels, 1, m.block_config.initializer(), jnp.float32, name='out_conv'
    )(px)
    return out, levels
