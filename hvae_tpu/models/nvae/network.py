"""The NVAE network: a bottom-up encoder, and a top-down hierarchy of groups of latent variables.

Shapes are [B, H, W, C]. Cells compute in `dtype`; parameters, statistics and all that enters a
distribution, a divergence or a likelihood are float32.
"""

from typing import Any, NamedTuple

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models import hierarchy
from hvae_tpu.models.hierarchy import NO_OVERRIDES, GroupDraw, Level, Overrides
from hvae_tpu.models.nvae.cells import ARCHITECTURES, UP, Cell, CellConfig
from hvae_tpu.models.nvae.convs import Conv
from hvae_tpu.models.nvae.flows import Flow, FlowConfig
from hvae_tpu.nn import distributions, rows
from hvae_tpu.nn.distributions import Group, Normal

CLAMP = 5.0
MIN_STD = 0.01  # added to every deviation: that of a standard normal prior is 1.01


class LatentConfig(NamedTuple):
  """Settings that the latent variables of all groups share.

  Attributes:
    zdim: latent channels.
    residual: whether the posterior is relative to the prior.
    tempered_whole: whether a temperature multiplies the whole deviation, or all but `MIN_STD`.
    analytic_kl: whether the KL is analytic; otherwise it is log q - log p of the draw.
    flow_encodes, flow_samples: whether the flow acts in inference and in generation.
    pairs: number of pairs of flow cells.
    flow: settings of the flow.
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
    """Returns the distribution of raw channels; both are clamped softly at +-5."""
    clamp = lambda v: CLAMP * jnp.tanh(v / CLAMP)
    std = jnp.exp(clamp(raw))
    if temperature is None:
      std = std + MIN_STD
    else:
      whole = temperature * (std + MIN_STD)
      std = whole if self.tempered_whole else temperature * std + MIN_STD
    return Normal(clamp(mean), jnp.log(std))


def split(channels: Array) -> tuple[Array, Array]:
  """Splits the channels of a sampler into (mean, raw log-deviation), float32."""
  mean, raw = jnp.split(channels.astype(jnp.float32), 2, axis=-1)
  return mean, raw


class Cells(nn.Module):
  """`count` cells of stride 1."""

  ops: tuple[str, ...]
  count: int
  config: CellConfig

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for i in range(self.count):
      x = Cell(self.ops, 1, self.config, name=f'cell_{i}')(x)
    return x


class EncGroup(nn.Module):
  """The cells of one bottom-up group; the top-down side sees their output."""

  ops: tuple[str, ...]
  count: int
  config: CellConfig

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    x = Cells(self.ops, self.count, self.config, name='cells')(x)
    return x, x


class Latent(nn.Module):
  """The latent variables of a group: drawn, or replaced by given ones."""

  config: LatentConfig

  @nn.compact
  def __call__(
    self,
    prior: tuple[Array, Array],
    posterior: tuple[Array, Array] | None,
    draw: GroupDraw,
  ) -> Level:
    # prior, posterior: mean and raw scale [B, h, w, zdim].
    c = self.config
    if posterior is None:
      p = dist = c.normal(*prior, draw.temperature)
    else:
      if c.residual:
        posterior = posterior[0] + prior[0], posterior[1] + prior[1]
      p, dist = c.normal(*prior), c.normal(*posterior)
    before_flow = z = draw.sample(dist)
    if c.pairs and (c.flow_encodes if posterior is not None else c.flow_samples):
      z = Flow(c.pairs, c.flow, name='flow')(z)
    z = draw.replace_given(z)
    # A flow that also generates is a layer of the decoder; the latent variables are before it.
    log_q, log_p = dist.log_prob(before_flow), p.log_prob(before_flow if c.flow_samples else z)
    kl = dist.kl(p) if c.analytic_kl else log_q - log_p
    self.sow('intermediates', 'prior', p)
    group = Group(dist.mean, dist.std, z)
    return Level(group, kl.sum((1, 2)), log_q.sum((1, 2, 3)), log_p.sum((1, 2, 3)))


class FirstGroup(nn.Module):
  """The group whose prior is a standard normal; `single`: it is the only group."""

  width: int
  enc_width: int
  single: bool
  config: CellConfig
  latent: LatentConfig

  @nn.compact
  def __call__(self, s: Array, act: Array | None, draw: GroupDraw) -> tuple[Array, Level]:
    config, zdim = self.config, self.latent.zdim
    zeros = jnp.zeros((*s.shape[:3], zdim))
    posterior = None
    if act is not None:
      top = nn.elu(config.conv(self.enc_width, 1, 'enc_top')(nn.elu(act)))
      self.sow('intermediates', 'top', top)
      posterior = split(config.conv(2 * zdim, 3, 'enc_sampler')(top))
    level = Latent(self.latent, name='latent')((zeros, zeros), posterior, draw)
    z = level.group.z.astype(config.dtype)
    combined = z if self.single else jnp.concatenate([s, z], axis=-1)
    return config.conv(self.width, 1, 'dec_combiner')(combined), level


class DecGroup(nn.Module):
  """One further group: cells, prior, posterior where an activation is given, combination."""

  ops: tuple[str, ...]
  count: int
  enc_width: int
  config: CellConfig
  latent: LatentConfig

  @nn.compact
  def __call__(self, s: Array, act: Array | None, draw: GroupDraw) -> tuple[Array, Level]:
    config, zdim = self.config, self.latent.zdim
    s = Cells(self.ops, self.count, config, name='cells')(s)
    prior = split(config.conv(2 * zdim, 1, 'dec_sampler')(nn.elu(s)))
    posterior = None
    if act is not None:
      feature = config.conv(self.enc_width, 1, 'enc_combiner')(s)
      feature = act + feature
      self.sow('intermediates', 'combined', feature)
      posterior = split(config.conv(2 * zdim, 3, 'enc_sampler')(feature))
    level = Latent(self.latent, name='latent')(prior, posterior, draw)
    both = jnp.concatenate([s, level.group.z.astype(config.dtype)], axis=-1)
    return config.conv(s.shape[-1], 1, 'dec_combiner')(both), level


class BottomUp(nn.Module):
  """The bottom-up side: images to the activations of a scale's groups, [count, B, h, w, C].

  Scales and groups are in the order of the top-down side, the coarsest first.
  """

  model: Any
  config: CellConfig

  @nn.compact
  def __call__(self, x: Array) -> list[Array]:
    m, arch, acts = self.model, ARCHITECTURES[self.model.arch_instance], []
    x = self.config.conv(m.num_channels_enc, 3, 'stem')(x)
    for b in range(m.num_process_blocks):
      for i in range(m.num_preprocess_cells):
        stride = 2 if i == m.num_preprocess_cells - 1 else 1
        x = m.rematerialise(Cell)(arch.pre, stride, self.config, name=f'pre_{b}_{i}')(x)
    for run in m.bottom_up_runs:
      if run.scale:
        x = m.rematerialise(Cell)(arch.enc, 2, self.config, name=f'down_{run.scale}')(x)
      stack = m.stack(EncGroup, run.count, in_axes=())
      groups = stack(arch.enc, 0 if m.single else m.num_cells_enc, self.config, name=run.name)
      x, acts_of_run = groups(rows.split_rows(x))
      acts.append(acts_of_run[::-1])
    return acts[::-1]


class TopDown(nn.Module):
  """The top-down side. The same groups infer (activations given) and generate (none)."""

  model: Any
  config: CellConfig
  latent: LatentConfig

  @nn.compact
  def __call__(
    self, acts: list[Array] | None, num: int, overrides: Overrides
  ) -> tuple[Array, list[Level]]:
    """Returns the output channels, and one stacked `Level` a run."""
    m, config, runs = self.model, self.config, self.model.top_down_runs
    arch, top = ARCHITECTURES[m.arch_instance], runs[0]
    draws = hierarchy.draws_of_runs(self.make_rng('sample'), num, m.latent_runs, overrides)
    s = self._start(num)
    acts = [None] * len(runs) if acts is None else acts
    first = FirstGroup(top.dec_width, top.enc_width, m.single, config, self.latent, name='first')
    first_act, first_draw = jax.tree.map(lambda leaf: leaf[0], (acts[0], next(draws)))
    s, level = first(s, first_act, first_draw)
    levels = [jax.tree.map(lambda leaf: leaf[None], level)]
    for j, (run, acts_of_run) in enumerate(zip(runs, acts, strict=True)):
      if j:
        s = m.rematerialise(Cell)(arch.dec, UP, config, name=f'up_{j}')(s)
      if not run.count:
        continue
      stack = m.stack(DecGroup, run.count, in_axes=(0, 0))
      fields = arch.dec, m.num_cells_dec, run.enc_width, config, self.latent
      acts_of_run = None if acts_of_run is None else acts_of_run[-run.count :]
      s, level = stack(*fields, name=run.name)(rows.split_rows(s), acts_of_run, next(draws))
      levels.append(level)
    return self._image(s, arch.post), levels

  def _start(self, num: int) -> Array:
    """Returns the learned map that the hierarchy starts from; a single group does not use it."""
    m, run = self.model, self.model.top_down_runs[0]
    shape = (run.side, run.side, run.dec_width)
    draw = distributions.uniform if m.prior_init == 'uniform' else distributions.normal
    start = self.param('prior_ftr0', lambda rng: draw(rng, shape))
    return jnp.broadcast_to(start.astype(self.config.dtype), (num, *shape))

  def _image(self, s: Array, ops: tuple[str, ...]) -> Array:
    """Returns output channels at the side of the image."""
    m = self.model
    last = m.num_postprocess_cells - 1
    for b in range(m.num_process_blocks):
      for i in range(m.num_postprocess_cells):
        up = i == (last if m.post_up_last else 0)
        s = m.rematerialise(Cell)(ops, UP if up else 1, self.config, name=f'post_{b}_{i}')(s)
    conv = Conv(m.out_channels, 3, self.config.norm, jnp.float32, name='image_conditional')
    return conv(nn.elu(s.astype(jnp.float32)))


class Net(nn.Module):
  """The whole network: images, or latents, to output channels.

  `model` is the `NVAE` dataclass; the network reads its fields and runs. `train`: whether batch
  normalisation uses the batch.
  """

  model: Any
  train: bool
  latent: LatentConfig

  @nn.compact
  def __call__(
    self, x: Array | None, num: int, overrides: Overrides = NO_OVERRIDES
  ) -> tuple[Array, list[Level]]:
    """Infers from scaled images x [B, H, W, C], or generates B images where x is None.

    Returns output channels [B, H, W, out_channels], float32, and one stacked `Level` a run. The
    `variates` of overrides are not supported.
    """
    m, config = self.model, self.model.cell_config(self.train)
    acts = BottomUp(m, config, name='bottom_up')(x) if x is not None else None
    return TopDown(m, config, self.latent, name='top_down')(acts, num, overrides)
