"""NVAE (Vahdat, Kautz, "NVAE: A Deep Hierarchical Variational Autoencoder", arXiv 2007.03898).

Reference: NVlabs/NVAE. Fields marked "mgp123" take the values of mgp123/nvae, a second public
implementation, in `configs/systems/nvae.py:MGP123`.
"""

import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu import settings
from hvae_tpu.errors import UserError
from hvae_tpu.models import protocol
from hvae_tpu.models.nvae import cells, convs, flows, heads, layout, objective, regularisers
from hvae_tpu.models.nvae.network import LatentConfig, Net
from hvae_tpu.models.protocol import Batch, Metrics, Params, State
from hvae_tpu.nn import cpu_kernels, distributions, layers
from hvae_tpu.nn.distributions import Level
from hvae_tpu.settings import setting


@dataclasses.dataclass(frozen=True)
class NVAE:
  """Hyper-parameters, and the interface that the trainer and the evaluations use."""

  image_size: int = 32
  image_channels: int = 3
  num_channels_enc: int = 32
  num_channels_dec: int = 32
  channel_multiplier: int = 2  # where the side halves
  num_process_blocks: int = 1  # halvings before the latent scales, and after
  num_preprocess_cells: int = 2
  num_postprocess_cells: int = 2
  num_latent_scales: int = 1
  num_groups_per_scale: int = 10  # of the finest scale
  group_divider: int = 1  # a coarser scale has those of the finer one over this
  min_groups_per_scale: int = 1
  num_cells_enc: int = 1  # per group
  num_cells_dec: int = 1
  zdim: int = 20  # latent channels of a group
  num_flows: int = 0  # pairs of autoregressive cells per group
  arch_instance: str = setting('res_mbconv', choices=tuple(cells.ARCHITECTURES))
  residual_posterior: bool = True  # relative to the prior
  likelihood: str = setting('dmol', choices=heads.HEADS)
  num_mixtures: int = 10
  num_bits: int = setting(8, choices=(8, 7, 6, 5, 4, 3, 2, 1))  # of input and target
  # The reference counts level 254 of 8 bits to the upper tail too; 0.999 makes masses sum to 1.
  dmol_upper_edge: float = 0.99
  output_temperature: float = setting(1.0, changeable=True)  # of drawn pixels
  output_statistic: str = setting('sample', choices=distributions.STATISTICS, changeable=True)
  target_crop: int = 0  # rows and columns of padding on each side that carry no likelihood
  # What differs between the two implementations.
  input_centering: bool = True  # mgp123: False, the network sees [0, 1]
  weight_norm: str = setting('log', choices=convs.NORMS[:2])  # mgp123: gain
  weight_norm_in_cells: bool = True
  se: str = setting('sixteenth', choices=cells.SE)  # mgp123: half
  skip_down_shift: bool = True
  skip_up_bias: bool = False
  post_up_last: bool = False
  prior_init: str = setting('uniform', choices=('uniform', 'normal'))
  temper_whole_std: bool = True
  flow_weight_norm: bool = True
  flow_bias: bool = False
  flow_mask_side: str = setting('left', choices=flows.SIDES)
  flow_in_encode: bool = True
  fixed_flows: bool = False  # flows as a layer of the decoder, also in generation
  kl_without_flows: str = setting('analytic', choices=('analytic', 'sampled'))
  # Training.
  kl_schedule: str = setting(
    'steps', choices=objective.KL_SCHEDULES, changeable=True
  )  # mgp123: epochs
  kl_anneal_steps: float = setting(1000.0, changeable=True)
  kl_const_steps: float = setting(0.0, changeable=True)  # before the rise
  kl_min: float = setting(1e-4, changeable=True)
  kl_warmup_epochs: int = setting(30, changeable=True)
  steps_per_epoch: int = setting(1, changeable=True)
  kl_balance: str = setting('square', choices=objective.KL_BALANCES, changeable=True)
  kl_weight: float = setting(1.0, changeable=True)
  regulariser: str = setting('spectral', choices=regularisers.REGULARISERS)  # mgp123: power
  weight_decay_norm: float = setting(0.0, changeable=True)  # weight of the regularisers
  weight_decay_norm_init: float = setting(0.0, changeable=True)  # annealed from; 0: not annealed
  dtype: str = setting('float32', choices=('float32', 'bfloat16'))  # of cells and between them
  depthwise: str = setting(
    'conv', choices=cpu_kernels.FORMS, changeable=True
  )  # the form of the program
  remat: str = setting('none', choices=layers.REMAT, changeable=True)
  unroll: str = setting('full', changeable=True)  # groups per iteration of a loop, or 'full'

  def __post_init__(self):
    settings.check(self, 'config.model')
    errors = layout.problems(self) + protocol.likelihood_problems(self)
    errors += objective.problems(self) + protocol.unroll_problems(self)
    if errors:
      raise UserError('; '.join('config.' + error for error in errors))

  # What the network reads.

  @functools.cached_property
  def bottom_up_runs(self) -> list[layout.Run]:
    return layout.bottom_up_runs(self)

  @functools.cached_property
  def top_down_runs(self) -> list[layout.Run]:
    return layout.top_down_runs(self)

  @functools.cached_property
  def latent_runs(self) -> list[tuple[int, int]]:
    """(groups, latent dimensions of a group) in order of execution, the first group apart."""
    size = lambda run: run.side**2 * self.zdim
    runs = self.top_down_runs
    return [(1, size(runs[0])), *((run.count, size(run)) for run in runs if run.count)]

  @property
  def single(self) -> bool:
    """Whether there is one group only, which makes it a VAE without towers."""
    return self.num_latent_scales == self.num_groups_per_scale == 1

  def cell_config(self, train: bool) -> cells.CellConfig:
    return cells.CellConfig(
      train=train,
      norm=self.weight_norm,
      cell_norm=self.weight_norm if self.weight_norm_in_cells else 'none',
      se=self.se,
      shift_down=self.skip_down_shift,
      bias_up=self.skip_up_bias,
      multiplier=self.channel_multiplier,
      depthwise=self.depthwise,
      dtype=jnp.dtype(self.dtype),
    )

  def latent_config(self, flow_encodes: bool) -> LatentConfig:
    norm = self.weight_norm if self.flow_weight_norm else 'none'
    has_formula = self.num_flows == 0 and self.kl_without_flows == 'analytic'
    return LatentConfig(
      zdim=self.zdim,
      residual=self.residual_posterior,
      tempered_whole=self.temper_whole_std,
      analytic_kl=self.fixed_flows or has_formula,
      flow_encodes=flow_encodes,
      flow_samples=self.fixed_flows,
      pairs=self.num_flows,
      flow=flows.FlowConfig(
        norm, self.flow_bias, self.flow_mask_side, self.depthwise, jnp.dtype(self.dtype)
      ),
    )

  @functools.cached_property
  def head(self) -> heads.Head:
    return heads.Head(
      self.likelihood,
      self.image_channels,
      self.num_mixtures,
      self.num_bits,
      self.dmol_upper_edge,
      self.output_temperature,
    )

  @property
  def out_channels(self) -> int:
    return self.head.out_channels

  def stack(self, block, count: int, in_axes):
    unroll = count if self.unroll == 'full' else int(self.unroll)
    return layers.stack_blocks(block, count, in_axes, self.remat, unroll)

  def kept(self, block: type[nn.Module]) -> type[nn.Module]:
    """A block outside of all runs, with the same memory for the backward pass as those inside."""
    return layers.remat_block(block, self.remat)

  # The objective.

  @functools.cached_property
  def _sides(self) -> tuple[int, ...]:
    runs = self.top_down_runs
    return (runs[0].side, *(run.side for run in runs for _ in range(run.count)))

  @functools.cached_property
  def level_names(self) -> tuple[str, ...]:
    return tuple(f'res{side:03d}/group{i:02d}' for i, side in enumerate(self._sides))

  @property
  def level_sizes(self) -> Array:
    """Latent dimensions of every group, [L]."""
    return jnp.array([side**2 * self.zdim for side in self._sides], jnp.float32)

  @property
  def num_dims(self) -> int:
    """H * W * C of the target."""
    return (self.image_size - 2 * self.target_crop) ** 2 * self.image_channels

  def scale(self, image: Array) -> Array:
    """uint8 -> [0, 1], on the 2**num_bits levels that keep the upper bits."""
    return heads.scale(image, self.num_bits)

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    protocol.check_images(self, batch)
    # A loop compiles faster than its copies, and makes the same parameters.
    plain = dataclasses.replace(self, unroll='1', remat='none')
    net = Net(plain, True, self.latent_config(flow_encodes=True))
    params_rng, sample_rng, vectors_rng = jax.random.split(rng, 3)
    x = self._input(self.scale(batch['image']))
    variables = net.init({'params': params_rng, 'sample': sample_rng}, x, len(x))
    # The architecture res_elu has no batch normalisation.
    state = {'batch_stats': variables.get('batch_stats', {})}
    if self.regulariser == 'spectral':
      state['singular'] = regularisers.first_vectors(variables['params'], vectors_rng)
    return variables['params'], state

  def loss(
    self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array, train: bool
  ) -> tuple[Array, tuple[State, Metrics]]:
    """Nats per example; in training with a weighted KL and penalties on the parameters."""
    target = self.scale(batch['image'])
    out, levels, stats = self._infer(params, state, target, rng, train)
    state = {**state, 'batch_stats': stats}
    metrics = self._metrics(out, target, levels)
    if not train:
      return metrics['neg_elbo'].mean(), (state, metrics)
    return self.objective(params, state, metrics, jax.random.fold_in(rng, 1), step)

  def objective(
    self, params: Params, state: State, metrics: Metrics, rng: Array, step: Array
  ) -> tuple[Array, tuple[State, Metrics]]:
    """What training minimises, from the metrics of a pass; returns what `loss` does."""
    kl, beta = metrics['kl_per_level'], objective.beta(self, step)
    alpha = objective.alphas(self._groups, self.kl_balance)
    weights = jnp.where(beta < 1, objective.balance(kl, alpha), 1.0)
    balanced = beta * (weights * kl).sum(-1)
    penalty, vectors, norms = objective.penalty(self, params, state, rng, step)
    metrics = {
      **metrics,
      **norms,
      'beta': beta,
      'kl_balance': jnp.broadcast_to(weights, kl.shape),
      'balanced_kl': balanced,
    }
    loss = (metrics['nll'] + self.kl_weight * balanced).mean() + penalty
    return loss, ({**state, **vectors}, metrics)

  @property
  def _groups(self) -> tuple[int, ...]:
    """Groups per scale, from the coarsest on."""
    return tuple(run.count for run in self.bottom_up_runs[::-1])

  def _metrics(self, out: Array, target: Array, levels: list[Level]) -> Metrics:
    kl = distributions.kl_of_runs(levels)
    return distributions.elbo_metrics(self._nll(out, target), kl, self.num_dims)

  def _nll(self, out: Array, target: Array) -> Array:
    crop = slice(self.target_crop, self.image_size - self.target_crop)
    return -self.head.log_prob(out, target)[:, crop, crop].sum((1, 2))

  # Inference and generation.

  def encode(self, params: Params, state: State, batch: Batch, rng: Array) -> distributions.Latents:
    flow_encodes = self.flow_in_encode or self.fixed_flows
    _, levels, _ = self._infer(params, state, self.scale(batch['image']), rng, False, flow_encodes)
    return layers.groups_of_runs(levels)

  def draw_prior(
    self,
    params: Params,
    state: State,
    rng: Array,
    num: int,
    temperature: Array | float | None = None,
    noise: tuple[Array, ...] | None = None,
  ) -> distributions.Latents:
    temperature = layers.per_level(temperature, len(self.level_names))
    args = None, num, None, None, temperature, noise
    _, levels, _ = self._run(params, state, jax.random.split(rng)[0], False, True, *args)
    return layers.groups_of_runs(levels)

  def kl_per_variate(self, params: Params, state: State, batch: Batch, rng: Array) -> Array:
    _, levels, _ = self._infer(params, state, self.scale(batch['image']), rng, False)
    return distributions.kl_of_runs(levels)

  def log_weights(self, params: Params, state: State, batch: Batch, rng: Array) -> Array:
    target = self.scale(batch['image'])
    out, levels, _ = self._infer(params, state, target, rng, False)
    return distributions.log_ratio_of_runs(levels) - self._nll(out, target)

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
    latent_rng, pixel_rng = jax.random.split(rng)
    out, _ = self.generate(params, state, latent_rng, len(z[0]), temperature, z, given)
    return self.pictures(out, pixel_rng)

  def sample(
    self,
    params: Params,
    state: State,
    rng: Array,
    num: int,
    temperature: Array | float | None = None,
  ) -> Array:
    latent_rng, pixel_rng = jax.random.split(rng)
    out, _ = self.generate(params, state, latent_rng, num, temperature)
    return self.pictures(out, pixel_rng)

  def refresh(
    self,
    params: Params,
    state: State,
    rng: Array,
    temperature: Array | float,
    iterations: int = 20,
    num: int = 16,
  ) -> State:
    """Moves the statistics of the top-down side towards those of generated pictures.

    Args:
      temperature: of the samples, one number or one per level.
      iterations: batches of samples, each of which moves the statistics by a twentieth.
      num: samples in a batch.
    """

    def move(i, stats):
      key = jax.random.fold_in(rng, i)
      moved = {**state, 'batch_stats': stats}
      return self.generate(params, moved, key, num, temperature, train=True)[1]

    stats = jax.lax.fori_loop(0, iterations, move, state['batch_stats'])
    return {**state, 'batch_stats': stats}

  def draw(self, out: Array, rng: Array) -> Array:
    """One draw from the likelihood [B, H, W, C] in [0, 1]."""
    return self.head.draw(out, rng)

  def pictures(self, out: Array, rng: Array) -> Array:
    """`draw`, or the mean by `output_statistic`, as uint8 [B, H, W, C]."""
    x = self.draw(out, rng) if self.output_statistic == 'sample' else self.head.mean(out)
    return distributions.to_uint8(2 * x - 1)

  def generate(
    self,
    params: Params,
    state: State,
    rng: Array,
    num: int,
    temperature: Array | float | None = None,
    z: tuple[Array, ...] | None = None,
    given: Array | None = None,
    train: bool = False,
  ) -> tuple[Array, Any]:
    """Output channels [B, H, W, out_channels] of latents from the prior, and batch statistics.

    Args:
      z, given: latents to use and which, see `Net`.
      train: normalise by the statistics of these pictures, and move the running ones.
    """
    temperature = layers.per_level(temperature, len(self.level_names))
    out, _, stats = self._run(params, state, rng, train, True, None, num, z, given, temperature)
    return out, stats

  def _input(self, target: Array) -> Array:
    return 2 * target - 1 if self.input_centering else target

  def _infer(
    self,
    params: Params,
    state: State,
    target: Array,
    rng: Array,
    train: bool,
    flow_encodes: bool = True,
  ) -> tuple[Array, list[Level], Any]:
    x = self._input(target)
    return self._run(params, state, rng, train, flow_encodes, x, len(x))

  def _run(self, params, state, rng, train, flow_encodes, *args) -> tuple[Array, list[Level], Any]:
    """Output channels, levels, and the batch statistics after the pass."""
    net = Net(self, train, self.latent_config(flow_encodes))
    variables = {'params': params, 'batch_stats': state['batch_stats']}
    if not train:
      out, levels = net.apply(variables, *args, rngs={'sample': rng})
      return out, levels, state['batch_stats']
    (out, levels), moved = net.apply(
      variables, *args, rngs={'sample': rng}, mutable=['batch_stats']
    )
    return out, levels, moved.get('batch_stats', {})
