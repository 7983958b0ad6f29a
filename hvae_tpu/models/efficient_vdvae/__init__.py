"""Efficient-VDVAE (Hazami, Mama, Thurairatnam, "Efficient-VDVAE: Less is more", arXiv 2203.13751).

Reference: Rayhane-mamah/Efficient-VDVAE, its JAX form; lists and fields keep its names.
"""

import dataclasses
import functools

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.models import hierarchy
from hvae_tpu.models.efficient_vdvae import layout, objective
from hvae_tpu.models.efficient_vdvae.network import BlockConfig, Net
from hvae_tpu.models.hierarchy import Level
from hvae_tpu.models.protocol import Batch, Metrics, Params, State
from hvae_tpu.nn import distributions, layers
from hvae_tpu.settings import setting

BASES = ('std', 'logstd')


@dataclasses.dataclass(frozen=True)
class EfficientVDVAE(hierarchy.PrunableHierarchy):
  """Hyper-parameters, and the interface that the trainer and the evaluations use."""

  image_size: int = setting(32, least=1)
  image_channels: int = setting(3, least=1)
  # Lists have an entry per level, or one for all: up_* from fine to coarse, down_* from coarse to
  # fine. The strides of the bottom-up side are `down_strides`, reversed.
  input_conv_filters: int = setting(512, least=1)
  input_kernel_size: int = setting(1, least=1)
  up_n_blocks_per_res: tuple[int, ...] = setting((0,), least=0)  # blocks before the one with a skip
  up_n_blocks: tuple[int, ...] = setting((1,), least=1)  # residual cells of a block
  up_n_layers: tuple[int, ...] = setting((2,), least=0)  # middle convolutions of a cell
  up_filters: tuple[int, ...] = setting((512,), least=1)  # channels behind the pooling
  up_mid_filters_ratio: tuple[float, ...] = setting((0.25,), above=0)
  up_kernel_size: tuple[int, ...] = setting((3,), least=1)
  down_strides: tuple[int, ...] = setting((1,), least=1)  # required
  down_n_blocks_per_res: tuple[int, ...] = setting((0,), least=0)  # more blocks with the same skip
  down_n_blocks: tuple[int, ...] = setting((1,), least=1)
  down_n_layers: tuple[int, ...] = setting((2,), least=0)
  down_filters: tuple[int, ...] = setting((512,), least=1)
  down_mid_filters_ratio: tuple[float, ...] = setting((0.25,), above=0)
  down_kernel_size: tuple[int, ...] = setting((3,), least=1)
  output_kernel_size: int = setting(1, least=1)
  use_1x1_conv: bool = True  # at the ends of a residual cell; False: the kernel of the level
  zdim: int = setting(32, least=1)  # latent channels of a group (`down_latent_variates`)
  stable_init: bool = True  # last kernels of residual cells times 1 / sqrt(L)
  initialize_prior_weights_as_zero: bool = False
  distribution_base: str = setting('std', choices=BASES)  # logstd: the raw scale is a log-scale
  gradient_smoothing_beta: float = setting(0.6931472, above=0)  # ln 2: raw 0 is scale 1
  use_residual_distribution: bool = False
  # the KL of the reference's JAX form for logstd, which is no true KL
  legacy_jax_logstd_kl: bool = setting(False, changeable=True)
  likelihood: str = setting('dmol', choices=('dmol', 'bernoulli'))
  num_mixtures: int = setting(10, least=1)
  num_bits: int = setting(8, choices=(8, 5))  # bits of input and target
  output_distribution_base: str = setting('std', choices=BASES)
  output_gradient_smoothing_beta: float = setting(0.6931472, above=0)
  min_mol_logscale: float = setting(-250.0, most=0)
  # temperature of sampled pixels
  output_temperature: float = setting(1.0, above=0, changeable=True)
  output_statistic: str = setting('sample', choices=distributions.STATISTICS, changeable=True)
  target_crop: int = setting(0, least=0)  # rows and columns on each side without a likelihood
  beta_schedule: str = setting('linear', choices=tuple(objective.BETA_SCHEDULES), changeable=True)
  beta_start: int = setting(21, least=0, changeable=True)  # 1 at 2 * beta_start + beta_steps
  beta_steps: int = setting(5000, least=0, changeable=True)
  beta_min: float = setting(1e-4, least=0, most=1, changeable=True)
  beta_activation_step: int = setting(10_000, least=0, changeable=True)  # logistic: 1 / 2 there
  beta_growth_rate: float = setting(1e-5, least=0, changeable=True)
  use_gamma_schedule: bool = setting(True, changeable=True)
  gamma_max_steps: int = setting(10_000, least=0, changeable=True)
  scaled_gamma: bool = setting(True, changeable=True)  # balance the KL per latent dimension
  # bits per latent dimension, above which a group counts as active
  latent_active_threshold: float = setting(1e-4, least=0, changeable=True)
  dtype: str = setting('float32', choices=('float32', 'bfloat16'))  # inside and between blocks
  remat: str = setting('none', choices=layers.REMAT, changeable=True)
  unroll: str = setting('full', changeable=True)  # blocks per iteration of a loop, or 'full'

  def problems(self) -> list[str]:
    """Returns a sentence for each group of fields that do not fit together."""
    lists = {name: getattr(self, name) for name in layout.LISTS}
    errors = layout.problems(self.down_strides, lists, self.image_size, self.input_conv_filters)
    if errors:
      return errors
    for run in (*self.up_runs, *self.down_runs):
      ratio = run.cells.ratio
      if int(run.cells.width * ratio) < 1 or run.cells.width < 2:
        errors.append(
          f'model: the bottleneck of {run.name}, {ratio} of {run.cells.width} channels, is less '
          f'than one channel; raise model.up_mid_filters_ratio or model.down_mid_filters_ratio'
        )
    return errors

  # The network's layout.

  def at_every_level(self, name: str) -> tuple:
    """Returns a list of the layout with one entry per level."""
    return layout.at_every_level(getattr(self, name), len(self.down_strides))

  @functools.cached_property
  def _lists(self) -> dict[str, tuple]:
    return {name: self.at_every_level(name) for name in layout.LISTS}

  @functools.cached_property
  def down_runs(self) -> list[layout.DownRun]:
    """Runs of the top-down side, the coarsest first."""
    side = self.image_size // int(np.prod(self.down_strides))
    return layout.down_runs(self.down_strides, self._lists, side)

  @functools.cached_property
  def up_runs(self) -> list[layout.UpRun]:
    """Runs of the bottom-up side, the finest first."""
    return layout.up_runs(
      tuple(reversed(self.down_strides)),
      self._lists,
      layout.skip_widths(self.down_strides, self._lists['down_filters']),
      self.input_conv_filters,
      self.image_size,
    )

  @functools.cached_property
  def sides(self) -> tuple[int, ...]:
    """Side of the latent map of every group."""
    return tuple(run.res for run in self.down_runs for _ in range(run.count))

  @functools.cached_property
  def block_config(self) -> BlockConfig:
    """Settings that all blocks share."""
    deep = (1 / len(self.sides)) ** 0.5
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
  def network(self) -> Net:
    """The module of the whole network."""
    return Net(self)

  @property
  def level_of_groups(self) -> np.ndarray:
    """Index of the entry of `down_strides` that every group belongs to, [L]."""
    return np.concatenate([run.levels for run in self.down_runs])

  def temperature_ramp(self, start: float, stop: float) -> Array:
    """Returns temperatures [L], linear in the level of each group; `stop` is not reached."""
    return start + self.level_of_groups * ((stop - start) / len(self.down_strides))

  # The objective.

  def loss(
    self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array, train: bool
  ) -> tuple[Array, tuple[State, Metrics]]:
    """Returns nats per dimension; in training, `objective.beta` and `gamma` weight the KL."""
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

  def metrics(self, out: Array, target: Array, levels: list[Level]) -> Metrics:
    """Returns the metrics of one pass, with the number of active groups."""
    metrics = super().metrics(out, target, levels)
    bits = metrics['kl_per_level'].mean(0) / (self.level_sizes * np.log(2))
    active = (bits >= self.latent_active_threshold).sum().astype(jnp.float32)
    return {**metrics, 'active_groups': active}

  # Images, and their likelihood.

  def scale_input(self, image: Array) -> Array:
    """Returns uint8 images in the scale of the target, which the network reads too."""
    return self.scale_target(image)

  def mixture(self, out: Array) -> distributions.LogisticMixture:
    """Returns the mixture of output channels; its scales are log-scales (over `smoothing`)."""
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
    """Returns the log-probability of the target given output channels, [B, H, W], nats."""
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

  def draw(self, out: Array, rng: Array) -> Array:
    """Returns one draw from the likelihood in the scale of the target (Bernoulli: its mean)."""
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

  def to_uint8(self, x: Array) -> Array:
    """Returns images in the scale of the target as uint8."""
    return distributions.to_uint8(2 * x - 1 if self.likelihood == 'bernoulli' else x)
