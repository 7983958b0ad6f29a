"""What the trainer knows about a model, and what evaluations and modes may ask for by name.

A model is a frozen dataclass: its fields are the hyper-parameters (the `model` section of a
config), its methods the interface. All methods are pure functions of arrays.
"""

from typing import Any, NamedTuple, Protocol

from jax import Array

from hvae_tpu.errors import UserError
from hvae_tpu.nn.distributions import Latents

Batch = dict[str, Array]  # `image` [B, H, W, C] or `video` [B, T, H, W, C], uint8, and more
Metrics = dict[str, Array]
Params = Any  # pytree of float32
State = Any  # pytree


class Segments(NamedTuple):
  """What a model of slots makes of pictures, at each of T stages (layers, then refinements).

  Attributes:
    rgb: [B, T, K, H, W, 3] in [0, 1], what each slot looks like.
    log_masks: [B, T, K, H, W], log-probabilities over the slots.
    attention: [B, T, K, H, W], of the stage, or of the last one that has any.
    slots: [B, T, K, D], what was decoded.
    mean: [B, T, K, D], of the distribution that they were drawn from.
    nll, kl: [B, R], nats, of the last R stages (before any refinement, after one, ...); None for a
      model without distributions.
  """

  rgb: Array
  log_masks: Array
  attention: Array
  slots: Array
  mean: Array
  nll: Array | None = None
  kl: Array | None = None


class Model(Protocol):
  """The required part.

  Metrics are a flat dict; the first axis is the batch (`[B]`, `[B, L]`), and anything already
  reduced is a scalar `[]`. Names carry units where they are not nats per example.
  """

  level_names: tuple[str, ...]  # what the L levels of `[B, L]` metrics are: 'res16/group03'

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Parameters and whatever else persists, from the first training batch."""

  def loss(
    self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array, train: bool
  ) -> tuple[Array, tuple[State, Metrics]]:
    """Scalar loss in the paper's own scale. `train=False` gives what the paper reports.

    `step` is the clock of every schedule, a traced int32.
    """


class OptionalMethods(Protocol):
  """Methods that one evaluation or mode asks for; a model has them or it has not."""

  def encode(
    self,
    params: Params,
    state: State,
    batch: Batch,
    rng: Array,
    variates: Array | None = None,
  ) -> Latents:
    """Draws every group from its posterior.

    Models with `pruned` take `variates` [L, V]; those that are False are drawn from the prior.
    """

  def decode(
    self,
    params: Params,
    state: State,
    latents: Latents,
    rng: Array,
    temperature: Array | float | None = None,
    given: Array | None = None,
  ) -> Array:
    """Pictures, uint8, from latents; those where `given` is False are drawn from the prior.

    `given` is [L], or [L, V] to choose among the variates of a group; None is all. The draws are
    those of `encode` with the first key of `jax.random.split(rng)`.
    """

  def sample(
    self,
    params: Params,
    state: State,
    rng: Array,
    num: int,
    temperature: Array | float | None = None,
  ) -> Array:
    """Pictures, uint8 [num, ...]; `temperature` is one number or one per level."""

  def draw_prior(
    self,
    params: Params,
    state: State,
    rng: Array,
    num: int,
    temperature: Array | float | None = None,
    noise: tuple[Array, ...] | None = None,
  ) -> Latents:
    """Draws every group from its prior; decoded with the same key they are those of `sample`.

    `noise` [num, h, w, zdim] of every group takes the place of standard normal draws. Keeping that
    of a group fixed keeps its place in its prior, which changes with the groups before it.
    """

  def temperature_ramp(self, start: float, stop: float) -> Array:
    """Temperatures [L] from `start` towards `stop`, where levels share them in groups."""

  def kl_per_variate(self, params: Params, state: State, batch: Batch, rng: Array) -> Array:
    """KL of each latent channel of each level, summed over space: [B, L, V], nats."""

  def pruned(
    self, params: Params, state: State, batch: Batch, rng: Array, variates: Array | None
  ) -> Metrics:
    """What `loss` reports, with the `variates` [L, V] that are False drawn from the prior."""

  def log_weights(self, params: Params, state: State, batch: Batch, rng: Array) -> Array:
    """log p(x, z) - log q(z | x) of one draw z of the posterior, [B], nats."""

  def predict(
    self,
    params: Params,
    state: State,
    batch: Batch,
    rng: Array,
    context: int,
    carry: Any,
    *,
    num: int,
    total: int = 0,
  ) -> tuple[Array, Any]:
    """Video: `num` frames after `context` observed ones, and a carry: chunks equal the whole.

    `total` is the number of frames of all chunks together. Models with `predict` have `cycle`, of
    which contexts and chunks are multiples.
    """

  def reconstruct(
    self, params: Params, state: State, batch: Batch, rng: Array
  ) -> tuple[Array, Array]:
    """Video: all frames, from posteriors, and from priors one tick ahead; [B, T, H, W, C] each."""

  def segment(self, params: Params, state: State, batch: Batch, rng: Array) -> Segments:
    """Takes pictures apart into slots."""

  def paint(self, params: Params, slots: Array) -> tuple[Array, Array]:
    """Slots [..., D] -> colours [..., H, W, 3] in [0, 1], and logits of masks [..., H, W]."""

  def warnings(self, card: dict[str, Any]) -> list[str]:
    """What to tell, one sentence each, before training on the data set of a card."""

  def refresh(
    self,
    params: Params,
    state: State,
    rng: Array,
    temperature: Array | float,
    iterations: int = 20,
    num: int = 16,
  ) -> State:
    """State to sample with: batch statistics of generated images, `iterations` batches of `num`."""

  def histograms(self, params: Params, state: State, batch: Batch, rng: Array) -> dict[str, Array]:
    """Quantities whose distribution is worth watching, float32 of any shape."""


def check_images(model: Any, batch: Batch) -> None:
  """Raises UserError if a batch has pictures of another shape than the model's."""
  expected = (model.image_size, model.image_size, model.image_channels)
  if (found := batch['image'].shape[1:]) != expected:
    raise UserError(
      f'the data has images {list(found)}, but config.model.image_size and image_channels ask '
      f'for {list(expected)}; correct them, or config.data.name'
    )


def likelihood_problems(model: Any) -> list[str]:
  """What is wrong with the likelihood of a model of pictures, one sentence each."""
  errors = []
  if model.likelihood != 'bernoulli' and model.image_channels != 3:
    errors.append(
      f'model.likelihood={model.likelihood} chains three colours; '
      f'model.image_channels={model.image_channels} must be 3 (or the likelihood bernoulli)'
    )
  if not 0 <= 2 * model.target_crop < model.image_size:
    errors.append(
      f'model.target_crop={model.target_crop} leaves nothing of model.image_size={model.image_size}'
    )
  return errors


def unroll_problems(model: Any) -> list[str]:
  """What is wrong with `unroll`, one sentence or none."""
  if model.unroll == 'full' or (model.unroll.isdigit() and int(model.unroll) > 0):
    return []
  return [f"model.unroll={model.unroll!r} must be 'auto', 'full' or a number of blocks"]
