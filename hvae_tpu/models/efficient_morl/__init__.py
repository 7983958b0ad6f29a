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
from hvae_tpu.models.efficient_morl import (
  attention,
  decoders,
  inference,
  iteration,
  objective,
  weights,
)
from hvae_tpu.models.efficient_morl.decoders import Decoder
from hvae_tpu.models.efficient_morl.gaussians import Gaussian
from hvae_tpu.models.efficient_morl.network import Hierarchy, Prior, Refinement
from hvae_tpu.models.efficient_morl.objective import Geco
from hvae_tpu.models.protocol import Batch, Metrics, Params, Segments, State
from hvae_tpu.nn import distributions, layers
from hvae_tpu.settings import setting

PRIORS = ('reversed_plus', 'reversed', 'bottom_up')


@dataclasses.dataclass(frozen=True)
class EfficientMORL:
  """Hyper-parameters, and the interface that the trainer and the evaluations use."""

  image_size: int = 35  # pictures are square
  image_channels: int = 3
  num_slots: int = 4
  zdim: int = 64  # of a slot
  stochastic_layers: int = 3
  use_dual_gru: bool = True  # False: one unit of twice the size
  image_decoder: str = setting('iodine', choices=decoders.DECODERS)
  likelihood: str = setting('gaussian', choices=tuple(objective.LIKELIHOODS))
  log_scale: float = -2.3025859  # of the likelihood: a deviation of 0.1
  # Of a layer: from the one above (plus: refined posteriors have that of the lowest layer, not
  # N(0, 1)), or from the one below.
  prior: str = setting('reversed_plus', choices=PRIORS)
  refinement_iters: int = setting(1, changeable=True)  # outside of training
  # Stages (first step, refinements) of the training.
  refinement_curriculum: tuple[tuple[int, int], ...] = setting(
    ((-1, 3), (100_000, 1)), changeable=True
  )
  refine_weighting: str = setting('early', choices=tuple(objective.WEIGHTINGS), changeable=True)
  # Pictures over which a loss is averaged before its gradient refines: 0 are those of the batch.
  # Outside of training it is 1: results depend on no batch.
  refine_loss_reduction: int = setting(0, changeable=True)
  kl_beta: float = setting(1.0, changeable=True)  # in training; 0 also leaves GECO out
  use_geco: bool = setting(True, changeable=True)
  # Target of the nll, nats per dimension; required where `use_geco`.
  geco_target: float = setting(-1.0, changeable=True)
  geco_warm_start: int = setting(1000, changeable=True)  # steps before the multiplier moves
  geco_ema_alpha: float = setting(0.99, changeable=True)
  geco_beta_stepsize: float = setting(1e-6, changeable=True)
  geco_step_size_acceleration: float = setting(1.0, changeable=True)  # where the target is reached
  dtype: str = setting('float32', choices=('float32', 'bfloat16'))  # of convolutions
  remat: str = setting('none', choices=layers.REMAT, changeable=True)  # of the decoder
  init_weights: str = setting('published', choices=weights.INITS, changeable=True)  # see `weights`

  def __post_init__(self):
    settings.check(self, 'config.model')
    errors = decoders.problems(self) + self._number_problems()
    errors += objective.curriculum_problems(self.refinement_curriculum)
    if errors:
      raise UserError('; '.join('config.' + error for error in errors))

  def _number_problems(self) -> list[str]:
    least = dict(num_slots=1, zdim=1, stochastic_layers=0, refinement_iters=0)
    least |= dict(refine_loss_reduction=0, geco_warm_start=0, kl_beta=0)
    return [
      f'model.{name}={getattr(self, name)} must be at least {minimum}'
      for name, minimum in least.items()
      if getattr(self, name) < minimum
    ]

  # What the pass reads.

  @property
  def form(self) -> iteration.Form:
    likelihood = objective.LIKELIHOODS[self.likelihood]
    return iteration.Form(
      likelihood=functools.partial(likelihood, log_scale=self.log_scale),
      layers=self.stochastic_layers,
      prior=self.prior,
      decoder=Decoder(self.image_decoder, self.image_size, jnp.dtype(self.dtype)),
      remat=self.remat,
    )

  @property
  def hierarchy(self) -> Hierarchy:
    return Hierarchy(self.use_dual_gru, jnp.dtype(self.dtype))

  @property
  def longest(self) -> int:
    """Refinements of the curriculum's longest stage."""
    return max(count for _, count in self.refinement_curriculum)

  # The objective.

  @functools.cached_property
  def level_names(self) -> tuple[str, ...]:
    return tuple(f'layer{i}' for i in range(self.stochastic_layers))

  @property
  def num_dims(self) -> int:
    """H * W * C of a picture."""
    return self.image_size**2 * self.image_channels

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    decoders.check_images(self, batch)
    rngs = jax.random.split(rng, 4)
    z = jnp.zeros((1, self.num_slots, self.zdim))
    gaussian = Gaussian(z, z)
    x = jnp.zeros((1, *batch['image'].shape[1:]))
    networks = {
      # One layer: they share their weights.
      'bottom_up': (self.hierarchy, x, jnp.zeros((2, *z.shape))),
      'prior': (Prior(), z),
      'decoder': (self.form.decoder, z),
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
    """Nats per picture: all iterations, weighted; outside of training nll + KL of the last one."""
    if not train:
      found = self._infer(params, state, batch, rng, lambda *_: ())
      metrics = self._metrics(found, batch)
      return metrics['neg_elbo'].mean(), (state, metrics)
    x, geco = self.scale(batch['image']), Geco(**state['geco'])
    last = objective.refinements_at(self.refinement_curriculum, step)
    active = self.use_geco and self.kl_beta > 0
    constrained = jnp.asarray(step) >= self.geco_warm_start if active else jnp.zeros((), bool)
    over = self.refine_loss_reduction or len(x)
    factors = objective.refining_weights(geco, self.kl_beta, constrained)
    factors = tuple(factor / over for factor in factors)
    noise = self._noise(rng, len(x), self.longest)
    found = inference.run(self.form, self.hierarchy, params, x, noise, factors, _summary, last)
    nll, kl, norms = found.kept

    def mean_loss(total: Array, nll: Array, kl: Array) -> Array:
      value = objective.iteration_loss(nll, kl, geco, self.kl_beta, constrained)
      return objective.of_value(total * (over / len(x)), value)

    weigh, index = objective.WEIGHTINGS[self.refine_weighting], jnp.arange(self.longest)
    before = jnp.where(index < last, weigh(index, last) * mean_loss(found.losses, nll, kl), 0.0)
    end = weigh(last, last) * mean_loss(found.last_loss, found.last.nll, found.last.kl)
    loss = before.sum() + end
    if active:
      geco = objective.next_geco(self, geco, found.last.nll.mean(), jnp.asarray(step))
    extra = {f'refinement_step_{i + 1}': norm for i, norm in enumerate(norms)}
    extra |= {f'geco_{name}': value for name, value in geco._asdict().items()}
    extra['refinements'] = last.astype(jnp.float32)
    return loss, ({'geco': geco._asdict()}, {**self._metrics(found, batch), **extra})

  def _metrics(self, found: inference.Pass, batch: Batch) -> Metrics:
    """What the reference reports: `nll` and `kl` are those of the last iteration."""
    last, layers_kl = found.last, found.kl_per_layer.T
    error = jnp.square(self.scale(batch['image']) - last.painted.mean)
    return {
      'nll': last.nll,
      'kl': last.kl,
      'neg_elbo': last.nll + last.kl,
      'mse': error.mean((1, 2, 3)),
      'kl_per_level': layers_kl,
      'kl_hierarchy': layers_kl.sum(-1),
    }

  def scale(self, image: Array) -> Array:
    """uint8 -> [0, 1]."""
    return image.astype(jnp.float32) / 255

  def _noise(self, rng: Array, num: int, refinements: int) -> tuple[Array, Array, Array]:
    """All draws of a pass, in its order: see `inference.run`."""
    depth = self.stochastic_layers
    count = inference.num_draws(depth, refinements)
    draws = distributions.normal(rng, (count, num, self.num_slots, self.zdim))
    return draws[: 1 + depth], draws[1 + depth : count - refinements], draws[count - refinements :]

  # Inference and generation.

  def segment(self, params: Params, state: State, batch: Batch, rng: Array) -> Segments:
    """Stages: the layers, of which the last is what is refined, then the refinements.

    Layers before the last are not trained to paint.
    """
    found = self._infer(params, state, batch, rng, lambda stage, _: stage)
    return inference.segments(self.form, params, found, self.image_size)

  def paint(self, params: Params, slots: Array) -> tuple[Array, Array]:
    return decoders.painted(self.form.decoder, params, slots)

  def warnings(self, card: dict[str, Any]) -> list[str]:
    found = attention.crowding(self.num_slots, card)
    if self.use_geco and self.geco_target < self.log_scale:
      found.append(
        f'config.model.geco_target={self.geco_target} cannot be reached: the nll is at least '
        f'config.model.log_scale={self.log_scale} per dimension, so that the weight of the '
        f'reconstruction rises for ever'
      )
    return found

  def _infer(
    self, params: Params, state: State, batch: Batch, rng: Array, keep: Any
  ) -> inference.Pass:
    """Outside of training: each picture by itself, with GECO's weight as it is now."""
    x = self.scale(batch['image'])
    beta = jax.nn.softplus(state['geco']['beta']) if self.use_geco else jnp.float32(1)
    noise = self._noise(rng, len(x), self.refinement_iters)
    factors = (beta, jnp.float32(1))  # of the KL: 1 whatever `kl_beta` is, as in the reference
    return inference.run(self.form, self.hierarchy, params, x, noise, factors, keep)


def _summary(stage: inference.Stage, step: inference.Step) -> tuple[Array, Array, Array]:
  """nll and KL of an iteration, and the norm of the step behind it, mean over slots: [B] each."""
  squares = sum(jnp.square(part).sum(-1) for part in step.change)
  return stage.nll, stage.kl, jnp.sqrt(squares).mean(-1)
