"""EfficientMORL (Emami et al., "Efficient Iterative Amortized Inference...", arXiv 2106.03630).

Reference: pemami4911/EfficientMORL. Losses are in nats, and likelihoods without their constants.
"""

import dataclasses
import functools
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu import settings
from hvae_tpu.errors import UserError
from hvae_tpu.models.efficient_morl import inference, iteration, objective, weights
from hvae_tpu.models.efficient_morl.gaussians import Gaussian
from hvae_tpu.models.efficient_morl.network import Hierarchy, Prior, Refinement
from hvae_tpu.models.efficient_morl.objective import Geco
from hvae_tpu.models.efficient_morl.slot_model import SlotModel
from hvae_tpu.models.protocol import (
  Batch,
  Metrics,
  Params,
  ReconstructionTarget,
  Segments,
  State,
)
from hvae_tpu.nn import distributions
from hvae_tpu.settings import setting

PRIORS = ('reversed_plus', 'reversed', 'bottom_up')


@dataclasses.dataclass(frozen=True)
class EfficientMORL(SlotModel):
  """Hyper-parameters and methods of EfficientMORL."""

  stochastic_layers: int = setting(3, least=0)
  use_dual_gru: bool = True  # False: one unit of twice the size
  likelihood: str = setting('gaussian', choices=tuple(objective.LIKELIHOODS))
  log_scale: float = -2.3025859  # log of the likelihood's deviation, which is 0.1
  # Prior of a layer: from the layer above it (reversed) or below it (bottom_up). With
  # reversed_plus, refined posteriors have the prior of the lowest layer, not N(0, 1).
  prior: str = setting('reversed_plus', choices=PRIORS)
  refinement_iters: int = setting(1, least=0, changeable=True)  # outside of training
  # Stages (first step, refinements) of the training.
  refinement_curriculum: tuple[tuple[int, int], ...] = setting(
    ((-1, 3), (100_000, 1)), changeable=True
  )
  # Weights of the iterations in the loss; late: as IODINE.
  refine_weighting: str = setting('early', choices=tuple(objective.WEIGHTINGS), changeable=True)
  # Number of pictures that the loss behind a refinement is averaged over; 0: the global batch. The
  # reference averages over the pictures of one GPU. Outside of training it is 1, so that results do
  # not depend on the batch.
  refine_loss_reduction: int = setting(0, least=0, changeable=True)
  kl_beta: float = setting(1.0, least=0, changeable=True)  # in training; 0 also disables GECO
  use_geco: bool = setting(True, changeable=True)
  # Target of the nll, nats per dimension; required where `use_geco`.
  geco_target: float = setting(-1.0, changeable=True)
  geco_warm_start: int = setting(1000, least=0, changeable=True)  # steps before beta moves
  geco_ema_alpha: float = setting(0.99, least=0, most=1, changeable=True)
  geco_beta_stepsize: float = setting(1e-6, least=0, changeable=True)
  # Factor of the step size where the target is reached.
  geco_step_size_acceleration: float = setting(1.0, least=0, changeable=True)
  # Fresh weights; preserving: signals keep their size, so that slots learn far sooner.
  init_weights: str = setting('published', choices=weights.INITS, changeable=True)

  def __post_init__(self):
    settings.check(self, 'config.model')
    errors = self.picture_problems() + objective.curriculum_problems(self.refinement_curriculum)
    if errors:
      raise UserError('; '.join('config.' + error for error in errors))

  # Settings in the form that a pass reads.

  @property
  def iteration_config(self) -> iteration.IterationConfig:
    likelihood = objective.LIKELIHOODS[self.likelihood]
    return iteration.IterationConfig(
      likelihood=functools.partial(likelihood, log_scale=self.log_scale),
      layers=self.stochastic_layers,
      prior=self.prior,
      decoder=self.decoder,
      remat=self.remat,
    )

  @property
  def hierarchy(self) -> Hierarchy:
    return Hierarchy(self.use_dual_gru, jnp.dtype(self.dtype))

  @property
  def max_refinements(self) -> int:
    """Largest number of refinements in the curriculum."""
    return max(count for _, count in self.refinement_curriculum)

  # The objective.

  @functools.cached_property
  def level_names(self) -> tuple[str, ...]:
    return tuple(f'layer{i}' for i in range(self.stochastic_layers))

  @property
  def num_dims(self) -> int:
    """Number of dimensions of a picture, H * W * C."""
    return self.image_size**2 * self.image_channels

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    x, z = self.blank_inputs(batch)
    rngs = jax.random.split(rng, 4)
    gaussian = Gaussian(z, z)
    networks = {
      # One layer is enough: layers share their weights.
      'bottom_up': (self.hierarchy, x, jnp.zeros((2, *z.shape))),
      'prior': (Prior(), z),
      'decoder': (self.decoder, z),
      'refinement': (Refinement(), gaussian, gaussian, z),
    }
    params = {
      name: network.init(key, *inputs)['params']
      for key, (name, (network, *inputs)) in zip(rngs, networks.items(), strict=True)
    }
    if self.init_weights == 'preserving':
      params = weights.preserving(params, self.zdim)
    return params, {'geco': objective.initial_geco()._asdict()}

  def loss(
    self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array, train: bool
  ) -> tuple[Array, tuple[State, Metrics]]:
    """Returns nats per picture: all iterations, weighted; the last one's nll + KL in evaluation."""
    if not train:
      result = self._infer(params, state, batch, rng, lambda *_: ())
      metrics = self._metrics(result, batch)
      return metrics['neg_elbo'].mean(), (state, metrics)
    x, geco = self.scale(batch['image']), Geco(**state['geco'])
    last = objective.refinements_at(self.refinement_curriculum, step)
    active = self.use_geco and self.kl_beta > 0
    constrained = jnp.asarray(step) >= self.geco_warm_start if active else jnp.zeros((), bool)
    reduction = self.refine_loss_reduction or len(x)
    factors = objective.refining_weights(geco, self.kl_beta, constrained)
    factors = tuple(factor / reduction for factor in factors)
    noise = self._noise(rng, len(x), self.max_refinements)
    result = inference.run(
      self.iteration_config, self.hierarchy, params, x, noise, factors, _summary, last
    )
    nll, kl, norms = result.records

    def mean_loss(total: Array, nll: Array, kl: Array) -> Array:
      value = objective.iteration_loss(nll, kl, geco, self.kl_beta, constrained)
      return objective.with_value(total * (reduction / len(x)), value)

    weigh, index = objective.WEIGHTINGS[self.refine_weighting], jnp.arange(self.max_refinements)
    before = jnp.where(index < last, weigh(index, last) * mean_loss(result.losses, nll, kl), 0.0)
    end = weigh(last, last) * mean_loss(result.last_loss, result.last.nll, result.last.kl)
    loss = before.sum() + end
    if active:
      geco = objective.next_geco(self, geco, result.last.nll.mean(), jnp.asarray(step))
    extra = {f'refinement_step_{i + 1}': norm for i, norm in enumerate(norms)}
    extra |= {f'geco_{name}': value for name, value in geco._asdict().items()}
    extra['refinements'] = last.astype(jnp.float32)
    return loss, ({'geco': geco._asdict()}, {**self._metrics(result, batch), **extra})

  def _metrics(self, result: inference.Pass, batch: Batch) -> Metrics:
    """Returns the metrics of the reference: `nll` and `kl` belong to the last iteration."""
    last, layers_kl = result.last, result.kl_per_layer.T
    error = jnp.square(self.scale(batch['image']) - last.canvas.mean)
    return {
      'nll': last.nll,
      'kl': last.kl,
      'neg_elbo': last.nll + last.kl,
      'mse': error.mean((1, 2, 3)),
      'kl_per_level': layers_kl,
      'kl_hierarchy': layers_kl.sum(-1),
    }

  def _noise(self, rng: Array, num: int, refinements: int) -> tuple[Array, Array, Array]:
    """Draws the noise of a pass, see `inference.run`."""
    depth = self.stochastic_layers
    count = inference.num_draws(depth, refinements)
    draws = distributions.normal(rng, (count, num, self.num_slots, self.zdim))
    return draws[: 1 + depth], draws[1 + depth : count - refinements], draws[count - refinements :]

  # Inference and generation.

  def segment(self, params: Params, state: State, batch: Batch, rng: Array) -> Segments:
    """Returns the slots of pictures at each stage: the layers, then the refinements.

    Refinements begin from the last layer. Layers before it are not trained to paint.
    """
    result = self._infer(params, state, batch, rng, lambda stage, _: stage)
    return inference.segments(self.decoder, params, result, self.image_size)

  def reconstruction_target(self, state: State) -> ReconstructionTarget | None:
    """Returns GECO's target and where training stands with it; None without GECO."""
    if not self.use_geco:
      return None
    geco = Geco(**state['geco'])
    return ReconstructionTarget(
      target=self.geco_target,
      lowest=self.log_scale,
      num_dims=self.num_dims,
      c_ema=geco.c_ema,
      beta=geco.beta,
      beta_at_rest=objective.FLOOR,
    )

  def warnings(self, card: dict[str, Any]) -> list[str]:
    sentences = super().warnings(card)
    if self.use_geco and self.geco_target < self.log_scale:
      sentences.append(
        f'config.model.geco_target={self.geco_target} cannot be reached: the nll is at least '
        f'config.model.log_scale={self.log_scale} per dimension, so that the weight of the '
        f'reconstruction rises for ever'
      )
    return sentences

  def _infer(
    self, params: Params, state: State, batch: Batch, rng: Array, record: Any
  ) -> inference.Pass:
    """Runs a pass outside of training: each picture by itself, with GECO's present weight."""
    x = self.scale(batch['image'])
    beta = jax.nn.softplus(state['geco']['beta']) if self.use_geco else jnp.float32(1)
    noise = self._noise(rng, len(x), self.refinement_iters)
    factors = (beta, jnp.float32(1))  # the KL has weight 1 whatever `kl_beta` is: the reference
    return inference.run(self.iteration_config, self.hierarchy, params, x, noise, factors, record)


def _summary(stage: inference.Stage, step: inference.Step) -> tuple[Array, Array, Array]:
  """Returns nll, KL and the norm of the refinement's step, mean over slots: [B] each."""
  squares = sum(jnp.square(part).sum(-1) for part in step.change)
  return stage.nll, stage.kl, jnp.sqrt(squares).mean(-1)
