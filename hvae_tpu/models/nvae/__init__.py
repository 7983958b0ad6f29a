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

from hvae_tpu.models import hierarchy, protocol
from hvae_tpu.models.hierarchy import NO_OVERRIDES, Level, Overrides
from hvae_tpu.models.nvae import cells, convs, flows, heads, layout, objective, regularisers
from hvae_tpu.models.nvae.network import LatentConfig, Net
from hvae_tpu.models.protocol import Batch, Metrics, Params, State
from hvae_tpu.nn import cpu_kernels, distributions, layers
from hvae_tpu.settings import setting


@dataclasses.dataclass(frozen=True)
class NVAE(hierarchy.ImageHierarchy):
  """Hyper-parameters, and the interface that the trainer and the evaluations use."""

  LEVEL_NAME = 'res{side:03d}/group{group:02d}'

  image_size: int = setting(32, least=1)
  image_channels: int = setting(3, least=1)
  num_channels_enc: int = setting(32, least=1)
  num_channels_dec: int = setting(32, least=1)
  channel_multiplier: int = setting(2, least=1)  # factor of the channels where the side halves
  # halvings before the latent scales, and after (num_preprocess_blocks = num_postprocess_blocks)
  num_process_blocks: int = setting(1, least=0)
  num_preprocess_cells: int = setting(2, least=1)
  num_postprocess_cells: int = setting(2, least=1)
  num_latent_scales: int = setting(1, least=1)
  num_groups_per_scale: int = setting(10, least=1)  # groups of the finest scale
  group_divider: int = setting(1, least=1)  # divides the groups from scale to scale; 2: ada_groups
  min_groups_per_scale: int = setting(1, least=1)
  num_cells_enc: int = setting(1, least=0)  # per group (num_cell_per_cond_enc)
  num_cells_dec: int = setting(1, least=0)
  zdim: int = setting(20, least=1)  # latent channels of a group (num_latent_per_group)
  num_flows: int = setting(0, least=0)  # pairs of autoregressive cells per group (num_nf)
  arch_instance: str = setting('res_mbconv', choices=tuple(cells.ARCHITECTURES))
  residual_posterior: bool = True  # relative to the prior (res_dist, on in all published runs)
  likelihood: str = setting('dmol', choices=heads.HEADS)
  num_mixtures: int = setting(10, least=1)  # num_mixture_dec
  # bits of input and target (num_x_bits)
  num_bits: int = setting(8, choices=(8, 7, 6, 5, 4, 3, 2, 1))
  # The reference counts level 254 of 8 bits to the upper tail too; 0.999 makes masses sum to 1.
  dmol_upper_edge: float = setting(0.99, least=-1, most=1)
  # temperature of sampled pixels
  output_temperature: float = setting(1.0, above=0, changeable=True)
  output_statistic: str = setting('sample', choices=distributions.STATISTICS, changeable=True)
  target_crop: int = setting(0, least=0)  # rows and columns on each side without a likelihood
  # Differences between the two implementations.
  input_centering: bool = True  # mgp123: False, the network sees [0, 1]
  weight_norm: str = setting('log', choices=convs.NORMS[:2])  # mgp123: gain
  weight_norm_in_cells: bool = True
  se: str = setting('sixteenth', choices=cells.SE)  # squeeze and excitation; mgp123: half
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
  # epochs (mgp123) reads kl_warmup_epochs and steps_per_epoch
  kl_schedule: str = setting('steps', choices=objective.KL_SCHEDULES, changeable=True)
  kl_anneal_steps: float = setting(1000.0, least=0, changeable=True)  # kl_anneal_portion of the run
  kl_const_steps: float = setting(0.0, least=0, changeable=True)  # before the rise
  kl_min: float = setting(1e-4, least=0, changeable=True)  # kl_const_coeff
  kl_warmup_epochs: int = setting(30, least=0, changeable=True)
  steps_per_epoch: int = setting(1, least=1, changeable=True)
  kl_balance: str = setting('square', choices=objective.KL_BALANCES, changeable=True)
  kl_weight: float = setting(1.0, least=0, changeable=True)
  regulariser: str = setting('spectral', choices=regularisers.REGULARISERS)  # mgp123: power
  weight_decay_norm: float = setting(0.0, least=0, changeable=True)  # weight of the regularisers
  # first weight of the regularisers; 0: not annealed
  weight_decay_norm_init: float = setting(0.0, least=0, changeable=True)
  dtype: str = setting('float32', choices=('float32', 'bfloat16'))  # inside and between cells
  # form of depthwise convolutions in the program
  depthwise: str = setting('conv', choices=cpu_kernels.FORMS, changeable=True)
  remat: str = setting('none', choices=layers.REMAT, changeable=True)
  unroll: str = setting('full', changeable=True)  # groups per iteration of a loop, or 'full'

  def problems(self) -> list[str]:
    """Returns a sentence for each group of fields that do not fit together."""
    return layout.problems(self) + objective.problems(self)

  # The network's layout.

  @functools.cached_property
  def bottom_up_runs(self) -> list[layout.Run]:
    """Runs of the bottom-up side, the finest first."""
    return layout.bottom_up_runs(self)

  @functools.cached_property
  def top_down_runs(self) -> list[layout.Run]:
    """Runs of the top-down side, the coarsest first, without the first group."""
    return layout.top_down_runs(self)

  @functools.cached_property
  def latent_runs(self) -> list[tuple[int, int]]:
    """(groups, latent dimensions of a group) in order of execution, the first group apart."""
    size = lambda run: run.side**2 * self.zdim
    runs = self.top_down_runs
    return [(1, size(runs[0])), *((run.count, size(run)) for run in runs if run.count)]

  @functools.cached_property
  def sides(self) -> tuple[int, ...]:
    """Side of the latent map of every group."""
    runs = self.top_down_runs
    return (runs[0].side, *(run.side for run in runs for _ in range(run.count)))

  @property
  def groups_per_scale(self) -> tuple[int, ...]:
    """Number of groups per scale, the coarsest first."""
    return tuple(run.count for run in self.bottom_up_runs[::-1])

  @property
  def single(self) -> bool:
    """Whether there is one group only, which makes it a VAE without towers."""
    return self.num_latent_scales == self.num_groups_per_scale == 1

  def cell_config(self, train: bool) -> cells.CellConfig:
    """Returns the settings that all cells share."""
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
    """Returns the settings that the latent variables of all groups share."""
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

  def network(self, train: bool, flow_encodes: bool = True) -> Net:
    """Returns the module of the whole network."""
    return Net(self, train, self.latent_config(flow_encodes))

  @functools.cached_property
  def head(self) -> heads.Head:
    """The likelihood of pixels."""
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
    """Channels of the network's output."""
    return self.head.out_channels

  def rematerialise(self, block: type[nn.Module]) -> type[nn.Module]:
    """Returns a block outside of all runs that treats memory as those inside do."""
    return layers.remat_block(block, self.remat)

  # The network, and the objective.

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    protocol.check_images(self, batch)
    params_rng, sample_rng, vectors_rng = jax.random.split(rng, 3)
    x = self.scale_input(batch['image'])
    network = self.quick_to_compile.network(train=True)
    variables = network.init({'params': params_rng, 'sample': sample_rng}, x, len(x))
    # The architecture res_elu has no batch normalisation.
    state = {'batch_stats': variables.get('batch_stats', {})}
    if self.regulariser == 'spectral':
      state['singular'] = regularisers.first_vectors(variables['params'], vectors_rng)
    return variables['params'], state

  def run_with_stats(
    self,
    params: Params,
    state: State,
    x: Array | None,
    num: int,
    rng: Array,
    overrides: Overrides = NO_OVERRIDES,
    train: bool = False,
    flow_encodes: bool = True,
  ) -> tuple[Array, list[Level], Any]:
    """Runs the network once, see `ImageHierarchy`.

    Args:
      train: whether batch normalisation uses these images, and moves its statistics.
      flow_encodes: whether the flow acts in inference.

    Returns:
      Output channels, levels, and the batch statistics after the pass.
    """
    network = self.network(train, flow_encodes)
    variables = {'params': params, 'batch_stats': state['batch_stats']}
    if not train:
      out, levels = network.apply(variables, x, num, overrides, rngs={'sample': rng})
      return out, levels, state['batch_stats']
    (out, levels), moved = network.apply(
      variables, x, num, overrides, rngs={'sample': rng}, mutable=['batch_stats']
    )
    return out, levels, moved.get('batch_stats', {})

  def run_network(
    self,
    params: Params,
    state: State,
    x: Array | None,
    num: int,
    rng: Array,
    overrides: Overrides,
  ) -> tuple[Array, list[Level]]:
    """Runs the network once, see `ImageHierarchy`."""
    return self.run_with_stats(params, state, x, num, rng, overrides)[:2]

  def loss(
    self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array, train: bool
  ) -> tuple[Array, tuple[State, Metrics]]:
    """Returns nats per example; in training, with a weighted KL and penalties on parameters."""
    x = self.scale_input(batch['image'])
    out, levels, stats = self.run_with_stats(params, state, x, len(x), rng, train=train)
    state = {**state, 'batch_stats': stats}
    metrics = self.metrics(out, self.scale_target(batch['image']), levels)
    if not train:
      return metrics['neg_elbo'].mean(), (state, metrics)
    return self.objective(params, state, metrics, jax.random.fold_in(rng, 1), step)

  def objective(
    self, params: Params, state: State, metrics: Metrics, rng: Array, step: Array
  ) -> tuple[Array, tuple[State, Metrics]]:
    """Returns the training loss, state and metrics, from the metrics of a pass."""
    kl, beta = metrics['kl_per_level'], objective.beta(self, step)
    alpha = objective.alphas(self.groups_per_scale, self.kl_balance)
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

  # Images, and their likelihood.

  def scale_target(self, image: Array) -> Array:
    """Returns uint8 images in [0, 1], on the 2**num_bits levels that keep the upper bits."""
    return heads.scale(image, self.num_bits)

  def scale_input(self, image: Array) -> Array:
    """Returns uint8 images in [-1, 1], or in [0, 1] without `input_centering`."""
    target = self.scale_target(image)
    return 2 * target - 1 if self.input_centering else target

  def log_likelihood(self, out: Array, target: Array) -> Array:
    """Returns the log-probability of the target given output channels, [B, H, W], nats."""
    return self.head.log_prob(out, target)

  def draw(self, out: Array, rng: Array) -> Array:
    """Returns one draw from the likelihood, [B, H, W, C] in [0, 1]."""
    return self.head.draw(out, rng)

  def pictures(self, out: Array, rng: Array) -> Array:
    """Returns a draw, or the mean by `output_statistic`, as uint8 [B, H, W, C]."""
    x = self.draw(out, rng) if self.output_statistic == 'sample' else self.head.mean(out)
    return distributions.to_uint8(2 * x - 1)

  # Optional methods.

  def encode(self, params: Params, state: State, batch: Batch, rng: Array) -> distributions.Latents:
    x, flow_encodes = self.scale_input(batch['image']), self.flow_in_encode or self.fixed_flows
    run = functools.partial(self.run_with_stats, flow_encodes=flow_encodes)
    return hierarchy.groups_of_runs(run(params, state, x, len(x), rng)[1])

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
      temperature: temperature of the samples, one number or one per level.
      iterations: batches of samples, each of which moves the statistics by a twentieth.
      num: samples in a batch.
    """
    overrides = Overrides(temperature=self.temperature_of_levels(temperature))

    def move(i, stats):
      moved, key = {**state, 'batch_stats': stats}, jax.random.fold_in(rng, i)
      return self.run_with_stats(params, moved, None, num, key, overrides, train=True)[2]

    stats = jax.lax.fori_loop(0, iterations, move, state['batch_stats'])
    return {**state, 'batch_stats': stats}
