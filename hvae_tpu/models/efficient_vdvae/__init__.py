"""Efficient-VDVAE (Hazami, Mama, Thurairatnam, "Efficient-VDVAE: Less is more", arXiv 2203.13751).

Reference: Rayhane-mamah/Efficient-VDVAE, its JAX form; lists and fields keep its names.
"""

import dataclasses
import functools

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu import settings
from hvae_tpu.errors import UserError
from hvae_tpu.models import protocol
from hvae_tpu.models.efficient_vdvae import layout, objective
from hvae_tpu.models.efficient_vdvae.network import BlockConfig, Net
from hvae_tpu.models.protocol import Batch, Metrics, Params, State
from hvae_tpu.nn import distributions, layers
from hvae_tpu.nn.distributions import Level
from hvae_tpu.settings import setting

BASES = ('std', 'logstd')


@dataclasses.dataclass(frozen=True)
class EfficientVDVAE:
  """Hyper-parameters, and the interface that the trainer and the evaluations use."""

  image_size: int = 32
  image_channels: int = 3
  # Lists by level, or one entry for all: up_* from fine to coarse, down_* from coarse to fine. The
  # strides of the one side are those of the other, reversed.
  input_conv_filters: int = 512
  input_kernel_size: int = 1
  up_n_blocks_per_res: tuple[int, ...] = (0,)  # blocks without a skip, before the one with it
  up_n_blocks: tuple[int, ...] = (1,)  # residual cells of a block
  up_n_layers: tuple[int, ...] = (2,)  # middle convolutions of a cell
  up_filters: tuple[int, ...] = (512,)  # channels behind the pooling
  up_mid_filters_ratio: tuple[float, ...] = (0.25,)
  up_kernel_size: tuple[int, ...] = (3,)
  down_strides: tuple[int, ...] = (1,)  # required
  down_n_blocks_per_res: tuple[int, ...] = (0,)  # further blocks with the skip of the first
  down_n_blocks: tuple[int, ...] = (1,)
  down_n_layers: tuple[int, ...] = (2,)
  down_filters: tuple[int, ...] = (512,)
  down_mid_filters_ratio: tuple[float, ...] = (0.25,)
  down_kernel_size: tuple[int, ...] = (3,)
  output_kernel_size: int = 1
  use_1x1_conv: bool = True  # at the ends of a residual cell; False: the kernel of the level
  zdim: int = 32  # latent channels of a group (`down_latent_variates`)
  stable_init: bool = True  # last kernels of residual cells times 1 / sqrt(L)
  initialize_prior_weights_as_zero: bool = False
  distribution_base: str = setting('std', choices=BASES)  # logstd: the raw scale is a log-scale
  gradient_smoothing_beta: float = 0.6931472  # of the latent scales; ln 2: raw 0 is scale 1
  use_residual_distribution: bool = False
  legacy_jax_logstd_kl: bool = setting(False, changeable=True)  # of the reference; no true KL
  likelihood: str = setting('dmol', choices=('dmol', 'bernoulli'))
  num_mixtures: int = 10
  num_bits: int = setting(8, choices=(8, 5))  # of input and target
  output_distribution_base: str = setting('std', choices=BASES)
  output_gradient_smoothing_beta: float = 0.6931472
  min_mol_logscale: float = -250.0
  output_temperature: float = setting(1.0, changeable=True)  # of drawn pixels
  output_statistic: str = setting('sample', choices=distributions.STATISTICS, changeable=True)
  target_crop: int = 0  # rows and columns of padding on each side that carry no likelihood
  beta_schedule: str = setting('linear', choices=tuple(objective.BETA_SCHEDULES), changeable=True)
  beta_start: int = setting(21, changeable=True)  # linear: 1 at 2 * beta_start + beta_steps
  beta_steps: int = setting(5000, changeable=True)
  beta_min: float = setting(1e-4, changeable=True)
  beta_activation_step: int = setting(10_000, changeable=True)  # logistic: 1 / 2 there
  beta_growth_rate: float = setting(1e-5, changeable=True)
  use_gamma_schedule: bool = setting(True, changeable=True)
  gamma_max_steps: int = setting(10_000, changeable=True)
  scaled_gamma: bool = setting(True, changeable=True)  # balance the KL per latent dimension
  latent_active_threshold: float = setting(1e-4, changeable=True)  # bits per latent dimension
  dtype: str = setting('float32', choices=('float32', 'bfloat16'))  # of blocks and between them
  remat: str = setting('none', choices=layers.REMAT, changeable=True)
  unroll: str = setting('full', changeable=True)  # blocks per iteration of a loop, or 'full'

  def __post_init__(self):
    settings.check(self, 'config.model')
    lists = {name: getattr(self, name) for name in layout.LISTS}
    errors = layout.problems(self.down_strides, lists, self.image_size, self.input_conv_filters)
    errors += protocol.likelihood_problems(self)
    errors += [] if errors else self._number_problems()
    errors += protocol.unroll_problems(self)
    if errors:
      raise UserError('; '.join('config.' + error for error in errors))

  def _number_problems(self) -> list[str]:
    names = ('image_channels', 'input_conv_filters', 'zdim', 'num_mixtures', 'input_kernel_size')
    positive = ('gradient_smoothing_beta', 'output_gradient_smoothing_beta', 'output_temperature')
    errors = [
      f'model.{name}={getattr(self, name)} must be at least 1'
      for name in (*names, 'output_kernel_size')
      if getattr(self, name) < 1
    ]
    errors += [
      f'model.{name}={getattr(self, name)} must be positive'
      for name in positive
      if getattr(self, name) <= 0
    ]
    for run in (*self.up_runs, *self.down_runs):
      ratio = run.cells.ratio
      if int(run.cells.width * ratio) < 1 or run.cells.width < 2:
        errors.append(
          f'model: the bottleneck of {run.name}, {ratio} of {run.cells.width} channels, is less '
          f'than one channel; raise model.up_mid_filters_ratio or model.down_mid_filters_ratio'
        )
    return errors

  # What the network reads.

  def at_every_level(self, name: str) -> tuple:
    """A list of the layout with one entry per level."""
    return layout.at_every_level(getattr(self, name), len(self.down_strides))

  @functools.cached_property
  def _lists(self) -> dict[str, tuple]:
    return {name: self.at_every_level(name) for name in layout.LISTS}

  @functools.cached_property
  def down_runs(self) -> list[layout.DownRun]:
    side = self.image_size // int(np.prod(self.down_strides))
    return layout.down_runs(self.down_strides, self._lists, side)

  @functools.cached_property
  def up_runs(self) -> list[layout.UpRun]:
    return layout.up_runs(
      tuple(reversed(self.down_strides)),
      self._lists,
      layout.skip_widths(self.down_strides, self._lists['down_filters']),
      self.input_conv_filters,
      self.image_size,
    )

  @functools.cached_property
  def block_config(self) -> BlockConfig:
    deep = (1 / len(self.level_names)) ** 0.5
    return BlockConfig(
      zdim=self.zdim,
      use_1x1=self.use_1x1_conv,
      base=self.distribution_base,
      beta=self.gradient_smoothing_beta,
      residual=self.use_residual_distribution,
      legacy_kl=self.legacy_jax_logstd_kl and self.distribution_base == 'logstd',
      prior_scale=0.0 if self.initialize_prior_weights_as_zero else 1.0,
      deep=deep if self.stable_init else 1.0,
      projected=deep,
      dtype=jnp.dtype(self.dtype),
    )

  @property
  def out_channels(self) -> int:
    return self.image_channels if self.likelihood == 'bernoulli' else 10 * self.num_mixtures

  def stack(self, block, count: int, in_axes):
    unroll = count if self.unroll == 'full' else int(self.unroll)
    return layers.stack_blocks(block, count, in_axes, self.remat, unroll)

  # The objective.

  @functools.cached_property
  def _sides(self) -> tuple[int, ...]:
    return tuple(run.res for run in self.down_runs for _ in range(run.count))

  @functools.cached_property
  def level_names(self) -> tuple[str, ...]:
    return tuple(f'res{res:02d}/group{i:02d}' for i, res in enumerate(self._sides))

  @property
  def level_of_groups(self) -> np.ndarray:
    """Which entry of `down_strides` every group belongs to, [L]."""
    return np.concatenate([run.levels for run in self.down_runs])

  def temperature_ramp(self, start: float, stop: float) -> Array:
    """Temperatures of the groups, [L], linear in their level; `stop` itself is not reached."""
    return start + self.level_of_groups * ((stop - start) / len(self.down_strides))

  @property
  def level_sizes(self) -> Array:
    """Latent dimensions of every group, [L]."""
    return jnp.array([res**2 * self.zdim for res in self._sides], jnp.float32)

  @property
  def num_dims(self) -> int:
    """H * W * C of the target."""
    return (self.image_size - 2 * self.target_crop) ** 2 * self.image_channels

  def scale(self, image: Array) -> Array:
    """uint8 -> [-1, 1] (`num_bits` levels), or [0, 1] for the Bernoulli likelihood."""
    if self.likelihood == 'bernoulli':
      return image.astype(jnp.float32) / 255
    return distributions.scale_pixels(image, self.num_bits)

  def mixture(self, out: Array) -> distributions.LogisticMixture:
    """The network's output as a mixture whose scales are log-scales (over `smoothing`)."""
    mixture = distributions.mixture_by_colour(out, self.num_mixtures)
    if self.output_distribution_base == 'logstd':
      return mixture
    scales = distributions.log_softplus(mixture.scales, self.output_gradient_smoothing_beta)
    return mixture._replace(scales=scales)

  @property
  def _smoothing(self) -> float:
    is_log = self.output_distribution_base == 'logstd'
    return self.output_gradient_smoothing_beta if is_log else 1.0

  def log_likelihood(self, out: Array, target: Array) -> Array:
    """Log-probability of the target given the network's output, per pixel [B, H, W], nats."""
    if self.likelihood == 'bernoulli':
      return distributions.bernoulli_log_prob(out, target).sum(-1)
    return distributions.dmol_log_prob(
      self.mixture(out),
      target,
      half_bin=1 / (2**self.num_bits - 1),  # at 5 bits the bins of the reference overlap a little
      upper_edge=distributions.EDGE if self.num_bits == 8 else 244 / 127.5 - 1,
      min_log_scale=self.min_mol_logscale,
      smoothing=self._smoothing,
    )

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    protocol.check_images(self, batch)
    # A loop compiles faster than its copies, and makes the same parameters.
    net = Net(dataclasses.replace(self, unroll='1', remat='none'))
    params_rng, sample_rng = jax.random.split(rng)
    x = self.scale(batch['image'])
    variables = net.init({'params': params_rng, 'sample': sample_rng}, x, len(x))
    return variables['params'], {}

  def loss(
    self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array, train: bool
  ) -> tuple[Array, tuple[State, Metrics]]:
    """Nats per dimension; in training the KL is weighted by `objective.beta` and `gamma`."""
    metrics = self.pruned(params, state, batch, rng, None)
    if not train:
      return metrics['neg_elbo'].mean() / self.num_dims, (state, metrics)
    kl, beta = metrics['kl_per_level'].mean(0), objective.beta(self, step)
    weights = jnp.ones_like(kl)
    if self.use_gamma_schedule:
      weights = objective.gamma(kl, self.level_sizes, step, self.gamma_max_steps, self.scaled_gamma)
    weighted = (weights * kl).sum()
    metrics = {
      **metrics,
      'beta': beta,
      'gamma': jnp.broadcast_to(weights, metrics['kl_per_level'].shape),
      'weighted_kl_bpd': weighted / (self.num_dims * np.log(2)),
    }
    return (metrics['nll'].mean() + beta * weighted) / self.num_dims, (state, metrics)

  def pruned(
    self, params: Params, state: State, batch: Batch, rng: Array, variates: Array | None
  ) -> Metrics:
    """The metrics where only `variates` [L, V] (None: all) are drawn from the posterior."""
    x = self.scale(batch['image'])
    out, levels = self._infer(params, x, rng, variates)
    nll = self._nll(out, x)
    metrics = distributions.elbo_metrics(nll, distributions.kl_of_runs(levels), self.num_dims)
    bits = metrics['kl_per_level'].mean(0) / (self.level_sizes * np.log(2))
    active = (bits >= self.latent_active_threshold).sum().astype(jnp.float32)
    return {**metrics, 'active_groups': active}

  def _nll(self, out: Array, target: Array) -> Array:
    """Negative log-likelihood of scaled images, [B], nats."""
    crop = slice(self.target_crop, self.image_size - self.target_crop)
    return -self.log_likelihood(out, target)[:, crop, crop].sum((1, 2))

  def histograms(self, params: Params, state: State, batch: Batch, rng: Array) -> dict[str, Array]:
    """Targets, draws from the likelihood, and means and log-scales of its components."""
    latent_rng, pixel_rng = jax.random.split(rng)
    x = self.scale(batch['image'])
    out, _ = self._infer(params, x, latent_rng)
    found = {'targets': x, 'outputs': self.draw(out, pixel_rng)}
    if self.likelihood == 'bernoulli':
      return found
    mixture = self.mixture(out)
    return {**found, 'mixture_means': mixture.means, 'mixture_log_scales': mixture.scales}

  # Inference and generation.

  def log_weights(self, params: Params, state: State, batch: Batch, rng: Array) -> Array:
    x = self.scale(batch['image'])
    out, levels = self._infer(params, x, rng)
    return distributions.log_ratio_of_runs(levels) - self._nll(out, x)

  def encode(
    self,
    params: Params,
    state: State,
    batch: Batch,
    rng: Array,
    variates: Array | None = None,
  ) -> distributions.Latents:
    _, levels = self._infer(params, self.scale(batch['image']), rng, variates)
    return layers.groups_of_runs(levels)

  def kl_per_variate(self, params: Params, state: State, batch: Batch, rng: Array) -> Array:
    return distributions.kl_of_runs(self._infer(params, self.scale(batch['image']), rng)[1])

  def draw_prior(
    self,
    params: Params,
    state: State,
    rng: Array,
    num: int,
    temperature: Array | float | None = None,
    noise: tuple[Array, ...] | None = None,
  ) -> distributions.Latents:
    latent_rng = jax.random.split(rng)[0]
    _, levels = self._top_down(params, latent_rng, num, temperature, noise=noise)
    return layers.groups_of_runs(levels)

  def decode(
    self,
    params: Params,
    state: State,
    latents: distributions.Latents,
    rng: Array,
    temperature: Array | float | None = None,
    given: Array | None = None,
  ) -> Array:
    given = jnp.ones(len(latents), bool) if given is None else given
    z = tuple(group.z for group in latents)
    return self._generate(params, rng, len(z[0]), temperature, z, given)

  def sample(
    self,
    params: Params,
    state: State,
    rng: Array,
    num: int,
    temperature: Array | float | None = None,
  ) -> Array:
    return self._generate(params, rng, num, temperature)

  def draw(self, out: Array, rng: Array) -> Array:
    """One draw from the likelihood in the scale of the target (Bernoulli: its mean)."""
    if self.likelihood == 'bernoulli':
      return jax.nn.sigmoid(out / self.output_temperature)
    highest = 1.0 if self.num_bits == 8 else 248 / 127.5 - 1
    return distributions.dmol_sample(
      rng,
      self.mixture(out),
      min_log_scale=self.min_mol_logscale,
      smoothing=self._smoothing,
      temperature=self.output_temperature,
      highest=highest,
    )

  def pictures(self, out: Array, rng: Array) -> Array:
    """`draw`, or the mean by `output_statistic`, as uint8, black where nothing was modelled."""
    has_draw = self.output_statistic == 'sample' or self.likelihood == 'bernoulli'
    x = self.draw(out, rng) if has_draw else distributions.dmol_mean(self.mixture(out))
    image = distributions.to_uint8(2 * x - 1 if self.likelihood == 'bernoulli' else x)
    return distributions.blank_padding(image, self.target_crop)

  def _infer(
    self, params: Params, x: Array, rng: Array, variates: Array | None = None
  ) -> tuple[Array, list[Level]]:
    rngs = {'sample': rng}
    return Net(self).apply({'params': params}, x, len(x), variates=variates, rngs=rngs)

  def _generate(self, params, rng, num, temperature, z=None, given=None) -> Array:
    latent_rng, pixel_rng = jax.random.split(rng)
    out, _ = self._top_down(params, latent_rng, num, temperature, z, given)
    return self.pictures(out, pixel_rng)

  def _top_down(
    self, params, rng, num, temperature, z=None, given=None, noise=None
  ) -> tuple[Array, list[Level]]:
    temperature = layers.per_level(temperature, len(self.level_names))
    rngs = {'sample': rng}
    args = None, num, z, given, temperature, None, noise
    return Net(self).apply({'params': params}, *args, rngs=rngs)
