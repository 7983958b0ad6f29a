"""The NVAE network: a bottom-up encoder, and a top-down hierarchy of groups of latent variables.

Shapes are [B, H, W, C]. Cells compute in `dtype`; parameters, statistics and all that enters a
distribution, a divergence or a likelihood are float32.
"""

from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.nvae.cells import ARCHITECTURES, UP, Cell, CellConfig
from hvae_tpu.models.nvae.convs import Conv
from hvae_tpu.models.nvae.flows import Flow, FlowConfig
from hvae_tpu.nn import distributions, layers
from hvae_tpu.nn.distributions import Group, Level, Normal

CLAMP = 5.0
MIN_STD = 0.01  # added to every deviation: that of a standard normal prior is 1.01


class LatentConfig(NamedTuple):
  """What every group needs to know.

  Attributes:
    zdim: latent channels.
    residual: whether the posterior is relative to the prior.
    tempered_whole: whether a temperature multiplies the whole deviation, or all but `MIN_STD`.
    analytic_kl: the other is the difference of the log-densities of the draw.
    flow_encodes, flow_samples: whether the flow acts in inference and in generation.
    pairs: of flow cells.
    flow: see `FlowConfig`.
  """

  zdim: int
  residual: bool
  tempered_whole: bool
  analytic_kl: bool
  flow_encodes: bool
  flow_samples: bool
  pairs: int
  flow: FlowConfig

  def normal(self, mean: Array, raw: Array, temperature: Array | None = None) -> Normal:
    """The distribution that raw channels stand for: both are clamped softly at +-5."""
    clamp = lambda v: CLAMP * jnp.tanh(v / CLAMP)
    std = jnp.exp(clamp(raw))
    if temperature is None:
      std = std + MIN_STD
    else:
      whole = temperature * (std + MIN_STD)
      std = whole if self.tempered_whole else temperature * std + MIN_STD
    return Normal(clamp(mean), jnp.log(std))


def split(channels: Array) -> tuple[Array, Array]:
  """Channels of a sampler -> (mean, raw log-deviation), float32."""
  mean, raw = jnp.split(channels.astype(jnp.float32), 2, axis=-1)
  return mean, raw


class Cells(nn.Module):
  """`count` cells of stride 1."""

  ops: tuple[str, ...]
  count: int
  cell_config: CellConfig

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for i in range(self.count):
      x = Cell(self.ops, 1, self.cell_config, name=f'cell_{i}')(x)
    return x


class EncGroup(nn.Module):
  """The cells of one bottom-up group; their output is also what the top-down side sees."""

  ops: tuple[str, ...]
  count: int
  cell_config: CellConfig

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    x = Cells(self.ops, self.count, self.cell_config, name='cells')(x)
    return x, x


class Latent(nn.Module):
  """Draws, or takes, the variables of a group, and reports on them."""

  config: LatentConfig

  @nn.compact
  def __call__(
    self,
    prior: tuple[Array, Array],
    posterior: tuple[Array, Array] | None,
    noise: Array,
    z: Array | None,
    given: Array | None,
    temperature: Array | None,
  ) -> Level:
    # prior, posterior: mean and raw scale [B, h, w, zdim]; noise [B, h * w * zdim].
    f = self.config
    if posterior is None:
      p = dist = f.normal(*prior, temperature)
    else:
      if f.residual:
        posterior = posterior[0] + prior[0], posterior[1] + prior[1]
      p, dist = f.normal(*prior), f.normal(*posterior)
    before = drawn = dist.sample(noise.reshape(dist.mean.shape))
    if f.pairs and (f.flow_encodes if posterior is not None else f.flow_samples):
      drawn = Flow(f.pairs, f.flow, name='flow')(drawn)
    z = drawn if z is None else jnp.where(given, z, drawn)
    # A flow that also generates is a layer of the decoder; the latent variables are before it.
    log_q, log_p = dist.log_prob(before), p.log_prob(before if f.flow_samples else z)
    kl = dist.kl(p) if f.analytic_kl else log_q - log_p
    self.sow('intermediates', 'prior', p)
    group = Group(dist.mean, dist.std, z)
    return Level(group, kl.sum((1, 2)), log_q.sum((1, 2, 3)), log_p.sum((1, 2, 3)))


class FirstGroup(nn.Module):
  """The group whose prior is a standard normal; `single` is a hierarchy of this group alone."""

  width: int
  enc_width: int
  single: bool
  cell_config: CellConfig
  latent: LatentConfig

  @nn.compact
  def __call__(self, s: Array, act: Array | None, *draw: Array | None) -> tuple[Array, Level]:
    cell_config, zdim = self.cell_config, self.latent.zdim
    zeros = jnp.zeros((*s.shape[:3], zdim))
    posterior = None
    if act is not None:
      top = nn.elu(cell_config.conv(self.enc_width, 1, 'enc_top')(nn.elu(act)))
      self.sow('intermediates', 'top', top)
      posterior = split(cell_config.conv(2 * zdim, 3, 'enc_sampler')(top))
    level = Latent(self.latent, name='latent')((zeros, zeros), posterior, *draw)
    z = level.group.z.astype(cell_config.dtype)
    combined = z if self.single else jnp.concatenate([s, z], axis=-1)
    return cell_config.conv(self.width, 1, 'dec_combiner')(combined), level


class DecGroup(nn.Module):
  """One further group: cells, prior, posterior where an activation is given, combination."""

  ops: tuple[str, ...]
  count: int
  enc_width: int
  cell_config: CellConfig
  latent: LatentConfig

  @nn.compact
  def __call__(self, s: Array, act: Array | None, *draw: Array | None) -> tuple[Array, Level]:
    cell_config, zdim = self.cell_config, self.latent.zdim
    s = Cells(self.ops, self.count, cell_config, name='cells')(s)
    prior = split(cell_config.conv(2 * zdim, 1, 'dec_sampler')(nn.elu(s)))
    posterior = None
    if act is not None:
      feature = cell_config.conv(self.enc_width, 1, 'enc_combiner')(s)
      feature = act + feature
      self.sow('intermediates', 'combined', feature)
      posterior = split(cell_config.conv(2 * zdim, 3, 'enc_sampler')(feature))
    level = Latent(self.latent, name='latent')(prior, posterior, *draw)
    both = jnp.concatenate([s, level.group.z.astype(cell_config.dtype)], axis=-1)
    return cell_config.conv(s.shape[-1], 1, 'dec_combiner')(both), level


class BottomUp(nn.Module):
  """Images to what every group sees, the coarsest first: [count, B, h, w, C] per scale."""

  config: Any
  cell_config: CellConfig

  @nn.compact
  def __call__(self, x: Array) -> list[Array]:
    c, arch, acts = self.config, ARCHITECTURES[self.config.arch_instance], []
    x = self.cell_config.conv(c.num_channels_enc, 3, 'stem')(x)
    for b in range(c.num_process_blocks):
      for i in range(c.num_preprocess_cells):
        stride = 2 if i == c.num_preprocess_cells - 1 else 1
        x = c.kept(Cell)(arch.pre, stride, self.cell_config, name=f'pre_{b}_{i}')(x)
    for run in c.bottom_up_runs:
      if run.scale:
        x = c.kept(Cell)(arch.enc, 2, self.cell_config, name=f'down_{run.scale}')(x)
      stack = c.stack(EncGroup, run.count, in_axes=())
      stack = stack(arch.enc, 0 if c.single else c.num_cells_enc, self.cell_config, name=run.name)
      x, seen = stack(layers.split_rows(x))
      acts.append(seen[::-1])
    return acts[::-1]


class TopDown(nn.Module):
  """The same groups infer (activations given) and generate (none)."""

  config: Any
  cell_config: CellConfig
  latent: LatentConfig

  @nn.compact
  def __call__(
    self,
    acts: list[Array] | None,
    num: int,
    latents: tuple[Array, ...] | None = None,
    given: Array | None = None,
    temperature: Array | None = None,
    noise: tuple[Array, ...] | None = None,
  ) -> tuple[Array, list[Level]]:
    """Args as `Net`. Returns the output channels, and one stacked `Level` a run."""
    c, cell_config, runs = self.config, self.cell_config, self.config.top_down_runs
    arch, top = ARCHITECTURES[c.arch_instance], runs[0]
    draws = layers.noise_of_runs(self.make_rng('sample'), num, c.latent_runs, noise)
    part = lambda array, where: None if array is None else array[where]
    s = self._start(num)
    acts = [None] * len(runs) if acts is None else acts
    first = FirstGroup(
      top.dec_width, top.enc_width, c.single, cell_config, self.latent, name='first'
    )
    drawn = part(latents, 0), part(given, 0), part(temperature, 0)
    s, level = first(s, part(acts[0], 0), draws[0][0], *drawn)
    levels, done = [jax.tree.map(lambda leaf: leaf[None], level)], 1
    for j, (run, seen) in enumerate(zip(runs, acts, strict=True)):
      if j:
        s = c.kept(Cell)(arch.dec, UP, cell_config, name=f'up_{j}')(s)
      if not run.count:
        continue
      mine, done = slice(done, done + run.count), done + run.count
      stack = c.stack(DecGroup, run.count, in_axes=(0,) * 5)
      s, level = stack(
        arch.dec, c.num_cells_dec, run.enc_width, cell_config, self.latent, name=run.name
      )(
        layers.split_rows(s),
        part(seen, slice(-run.count, None)),
        draws[len(levels)],
        jnp.stack(latents[mine]) if latents is not None else None,
        part(given, mine),
        part(temperature, mine),
      )
      levels.append(level)
    return self._image(s, arch.post), levels

  def _start(self, num: int) -> Array:
    """The learned map that the hierarchy starts from; a single group leaves it unused."""
    c, run = self.config, self.config.top_down_runs[0]
    shape = (run.side, run.side, run.dec_width)
    draw = distributions.uniform if c.prior_init == 'uniform' else distributions.normal
    start = self.param('prior_ftr0', lambda rng: draw(rng, shape))
    return jnp.broadcast_to(start.astype(self.cell_config.dtype), (num, *shape))

  def _image(self, s: Array, ops: tuple[str, ...]) -> Array:
    c = self.config
    last = c.num_postprocess_cells - 1
    for b in range(c.num_process_blocks):
      for i in range(c.num_postprocess_cells):
        up = i == (last if c.post_up_last else 0)
        s = c.kept(Cell)(ops, UP if up else 1, self.cell_config, name=f'post_{b}_{i}')(s)
    conv = Conv(c.out_channels, 3, self.cell_config.norm, jnp.float32, name='image_conditional')
    return conv(nn.elu(s.astype(jnp.float32)))


class Net(nn.Module):
  """Images to output channels, or latents to output channels.

  `config` is the `NVAE` dataclass; the network reads its fields and runs. `train` decides what
  batch normalisation uses.
  """

  config: Any
  train: bool
  latent: LatentConfig

  @nn.compact
  def __call__(
    self,
    x: Array | None,
    num: int,
    latents: tuple[Array, ...] | None = None,
    given: Array | None = None,
    temperature: Array | None = None,
    noise: tuple[Array, ...] | None = None,
  ) -> tuple[Array, list[Level]]:
    """Runs the hierarchy once.

    Args:
      x: [B, H, W, C] scaled images, to infer; None, to generate.
      num: B.
      latents: z of every group, [B, h, w, zdim] each, or None.
      given: [L] bool; which of `latents` to use. The other groups are drawn.
      temperature: [L], of the prior's deviations where x is None; None is 1.
      noise: what the groups are drawn with, [B, h, w, zdim] each; None: standard normal draws.

    Returns:
      Output channels [B, H, W, out_channels], float32, and per run a `Level` with leading [count].
    """
    c = self.config
    cell_config = c.cell_config(self.train)
    acts = BottomUp(c, cell_config, name='bottom_up')(x) if x is not None else None
    top_down = TopDown(c, cell_config, self.latent, name='top_down')
    return top_down(acts, num, latents, given, temperature, noise)
