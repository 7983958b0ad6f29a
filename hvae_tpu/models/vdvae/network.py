"""The VDVAE network: a bottom-up encoder and a top-down hierarchy of stochastic blocks.

Shapes are [B, H, W, C]. Blocks and the residual stream between them compute in `dtype`; parameters
and all that enters a distribution, a divergence or a likelihood are float32.
"""

from typing import Any, NamedTuple

from flax import linen as nn
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.vdvae import layout
from hvae_tpu.nn import distributions, layers
from hvae_tpu.nn.distributions import Level


class BlockConfig(NamedTuple):
  """What every block needs to know: activation, initialisation, compute type."""

  gelu_approximate: bool
  scheme: str
  dtype: Any

  def initializer(self, scale: float = 1.0):
    """`torch`: uniform, deviation times `scale`; `lecun`: truncated normal, variance times it."""
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
      return layers.conv(features, kernel, init, self.config.dtype, name)(h)

    h = step(x, self.mid, 1, 'c1')
    h = step(h, self.mid, self.kernel, 'c2')
    h = step(h, self.mid, self.kernel, 'c3')
    h = step(h, self.out, 1, 'c4', self.last_scale)
    return x + h if self.residual else h


class EncoderBlock(nn.Module):
  """A residual block; the carry also holds its input, which is the skip of a run that pools."""

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
  def __call__(
    self,
    x: Array,
    acts: Array | None,
    noise: Array,
    z: Array | None,
    given: Array | None,
    temperature: Array | None,
    variates: Array | None,
  ) -> tuple[Array, Level]:
    # x, acts [B, h, w, width]; noise [B, h * w * zdim]; z [B, h, w, zdim]; temperature [];
    # given [] or [zdim]; variates [zdim].
    def block(out, name, **kwargs):
      return Block(self.mid, out, self.kernel, self.config, name=name, **kwargs)

    features = block(2 * self.zdim + self.width, 'prior', last_scale=0.0)(x)
    prior, skip = _normal(features[..., : 2 * self.zdim]), features[..., 2 * self.zdim :]
    if acts is None:
      dist = prior.tempered(temperature)
    else:
      dist = _normal(block(2 * self.zdim, 'enc')(jnp.concatenate([x, acts], axis=-1)))
      if variates is not None:
        pairs = zip(dist, prior, strict=True)
        dist = distributions.Normal(*(jnp.where(variates, *pair) for pair in pairs))
    drawn = dist.sample(noise.reshape(dist.mean.shape))
    z = drawn if z is None else jnp.where(given, z, drawn)
    kl = dist.kl(prior)
    if variates is not None:
      kl = jnp.where(variates, kl, 0.0)  # exactly: not what rounding leaves
    init = self.config.initializer(self.last_scale)
    x = x + skip
    x = x + layers.conv(self.width, 1, init, self.config.dtype, 'z_proj')(z)
    x = block(self.width, 'resnet', residual=True, last_scale=self.last_scale)(x)
    self.sow('intermediates', 'prior_dist', prior)
    self.sow('intermediates', 'kl', kl)
    return x, distributions.level(dist, prior, z, kl)


def _normal(features: Array) -> distributions.Normal:
  mean, logstd = jnp.split(features.astype(jnp.float32), 2, axis=-1)
  return distributions.Normal(mean, logstd)


def _block_fields(model: Any, run: layout.Run, num_blocks: int) -> dict[str, Any]:
  """What the blocks of a run have in common, and the name of the run."""
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
  """Bottom-up: images to one map of activations per resolution."""

  config: Any

  @nn.compact
  def __call__(self, x: Array) -> dict[int, Array]:
    c = self.config
    runs, num_blocks = c.encoder_runs, sum(run.count for run in c.encoder_runs)
    x = layers.conv(c.width, 3, c.block_config.initializer(), c.block_config.dtype, 'in_conv')(x)
    acts = {x.shape[1]: x}
    for run in runs:
      fields = _block_fields(c, run, num_blocks)
      if c.kernel_init == 'lecun':
        fields['last_scale'] = 1.0  # vdvae-jax does not scale the encoder
      stack = c.stack(EncoderBlock, run.count, in_axes=())
      x = layers.split_rows(x)
      (x, before_last), _ = stack(**fields)((x, x))
      acts[run.res] = before_last if run.rate > 1 else x
      if run.rate > 1:
        x = layers.average_pool(x, run.rate)
        x = layers.pad_channels(x, c.width_at(x.shape[1]))
        acts[x.shape[1]] = x
    return acts


class Decoder(nn.Module):
  """Top-down: the same blocks infer (activations given) and generate (none)."""

  config: Any

  @nn.compact
  def __call__(
    self,
    acts: dict[int, Array] | None,
    num: int,
    latents: tuple[Array, ...] | None = None,
    given: Array | None = None,
    temperature: Array | None = None,
    variates: Array | None = None,
    noise: tuple[Array, ...] | None = None,
  ) -> tuple[Array, list[Level]]:
    """Args as `Net`. Returns the last map [B, H, W, width] and one stacked `Level` a run."""
    c = self.config
    num_blocks = sum(run.count for run in c.decoder_runs)
    maps, levels, first = self._start_maps(num), [], 0
    for run, draws in zip(c.decoder_runs, self._noise(num, noise), strict=True):
      width = c.width_at(run.res)
      x = maps.get(run.res, jnp.zeros((num, run.res, run.res, width), c.block_config.dtype))
      if run.mixin is not None:
        x += layers.upsample_nearest(maps[run.mixin][..., :width], run.res // run.mixin)
      x = layers.split_rows(x)
      mine = slice(first, first + run.count)
      stack = c.stack(DecoderBlock, run.count, in_axes=(nn.broadcast, 0, 0, 0, 0, 0))
      x, level = stack(zdim=c.zdim, **_block_fields(c, run, num_blocks))(
        x,
        acts[run.res] if acts is not None else None,
        draws,
        jnp.stack(latents[mine]) if latents is not None else None,
        given[mine] if given is not None else None,
        temperature[mine] if temperature is not None else None,
        variates[mine] if variates is not None else None,
      )
      maps[run.res] = x
      levels.append(level)
      first += run.count
    return maps[c.image_size], levels

  def _noise(self, num: int, noise: tuple[Array, ...] | None) -> list[Array]:
    """Standard normal draws of all blocks: per run [count, B, h * w * zdim]."""
    sizes = [(run.count, run.res**2 * self.config.zdim) for run in self.config.decoder_runs]
    return layers.noise_of_runs(self.make_rng('sample'), num, sizes, noise)

  def _start_maps(self, num: int) -> dict[int, Array]:
    """The learned maps that the coarse resolutions start from (`bias_xs` of the release)."""
    c, maps = self.config, {}
    for res in sorted({run.res for run in c.decoder_runs}):
      if res <= c.no_bias_above:
        shape = (res, res, c.width_at(res))
        start = self.param(f'start_{res}', nn.initializers.zeros, shape)
        maps[res] = jnp.broadcast_to(start.astype(c.block_config.dtype), (num, *shape))
    return maps


class Net(nn.Module):
  """Images to output channels, or latents to output channels.

  `config` is the `VDVAE` dataclass; the network reads its fields and resolved settings only.
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
    c = self.config
    acts = Encoder(c, name='encoder')(x) if x is not None else None
    decoder = Decoder(c, name='decoder')
    px, levels = decoder(acts, num, latents, given, temperature, variates, noise)
    gain = self.param('gain', nn.initializers.ones, (c.width,))
    bias = self.param('bias', nn.initializers.zeros, (c.width,))
    px = px.astype(jnp.float32) * gain + bias
    self.sow('intermediates', 'px_z', px)
    out = layers.conv(c.out_channels, 1, c.block_config.initializer(), jnp.float32, 'out_conv')(px)
    return out, levels
