"""The interface of a model: the two methods that the trainer calls, and everything optional.

A model is a frozen dataclass: its fields are the hyper-parameters (the `model` section of a
config), its methods the interface. All methods are pure functions of arrays. A model with `init`
and `loss` trains, resumes and evaluates; the optional members below serve the
evaluations and modes that name them in `NEEDS`.
"""

from collections.abc import Mapping, Sequence
import inspect
from typing import Any, ClassVar, NamedTuple, Protocol

from jax import Array

from hvae_tpu.errors import UserError
from hvae_tpu.nn.distributions import Latents

Batch = dict[str, Array]  # `image` [B, H, W, C] or `video` [B, T, H, W, C], uint8, and more
Metrics = dict[str, Array]
Params = Any  # pytree of float32
State = Any  # pytree


class Segments(NamedTuple):
  """Slots of pictures at each of T stages (layers, then refinements).

  Attributes:
    rgb: [B, T, K, H, W, 3] in [0, 1], the picture that each slot paints.
    log_masks: [B, T, K, H, W], log-probabilities over the slots.
    attention: [B, T, K, H, W], of the stage, or of the last stage that has attention.
    slots: [B, T, K, D], the decoded vectors.
    mean: [B, T, K, D], means of the distributions that the slots were drawn from.
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


class ReconstructionTarget(NamedTuple):
  """Target that training holds the reconstruction at, and where it stands (GECO).

  Attributes:
    target: target of the nll, nats per dimension; the field `geco_target` of the model.
    lowest: bound of the nll, nats per dimension, which no parameters can go below.
    num_dims: dimensions of an example.
    c_ema: [], moving average of target - nll per example, nats; positive where the target is
      reached.
    beta: [], multiplier of the constraint before the softplus.
    beta_at_rest: its least value.
  """

  target: float
  lowest: float
  num_dims: int
  c_ema: Array
  beta: Array
  beta_at_rest: float


class Model(Protocol):
  """The required part.

  Metrics are a flat dict; the first axis is the batch (`[B]`, `[B, L]`), and anything already
  reduced is a scalar `[]`. Names carry units where they are not nats per example.
  """

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    """Makes the parameters, and the state that persists, from the first training batch."""

  def loss(
    self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array, train: bool
  ) -> tuple[Array, tuple[State, Metrics]]:
    """Computes the loss, a scalar in the paper's scale.

    `train=False` leaves out weights and schedules of training, as papers report the loss. `step`
    is the clock of every schedule, a traced int32.
    """


class OptionalAttributes(Protocol):
  """Attributes that the trainer, evaluations, modes, figures and generation ask for by name."""

  # Names of the L levels of `[B, L]` metrics and of the latent groups, coarsest first, such as
  # 'res16/group03'. Without it, metrics are `[B]` or `[]`.
  level_names: tuple[str, ...]
  level_sizes: Array  # [L] float32, latent dimensions of each level: positions times channels
  num_dims: int  # observed values of an example; bits/dim are nats / (num_dims * ln 2)
  image_size: int  # pixels, the side of its square images
  image_channels: int
  cycle: int  # frames of one tick of the slowest level (video); divides contexts and chunks
  num_slots: int  # K
  # Fields of the dataclass, which modes replace for drawing.
  output_statistic: str  # 'sample' or 'mean' of the pixels
  output_temperature: float  # of drawn pixels
  # Fields of a model that is trained with GECO.
  use_geco: bool
  geco_target: float  # nats per dimension, of the negative log-likelihood
  log_scale: float  # nats per dimension, the lowest negative log-likelihood that is possible
  # Fields that decide memory and speed only, which `--mode=plan` prints.
  dtype: str
  remat: str
  unroll: str
  # Field -> platform ('cpu', 'tpu', 'gpu') -> value of 'auto', where the usual one is not right.
  AUTO: ClassVar[Mapping[str, Mapping[str, str]]]


class OptionalMethods(Protocol):
  """Methods that evaluations, modes, figures and generation ask for by name."""

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
    """Decodes latents to pictures, uint8; those where `given` is False are drawn from the prior.

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
    """Draws pictures, uint8 [num, ...]; `temperature` is one number or one per level."""

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
    """Returns temperatures [L] from `start` towards `stop`, for levels that share some of them."""

  def kl_per_variate(self, params: Params, state: State, batch: Batch, rng: Array) -> Array:
    """Computes the KL of each latent channel of each level, summed over space: [B, L, V], nats."""

  def pruned(
    self, params: Params, state: State, batch: Batch, rng: Array, variates: Array | None
  ) -> Metrics:
    """Computes the metrics of `loss`, with False `variates` [L, V] drawn from the prior."""

  def log_weights(self, params: Params, state: State, batch: Batch, rng: Array) -> Array:
    """Computes log p(x, z) - log q(z | x) of one draw z of the posterior, [B], nats."""

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
    """Predicts `num` frames of a video after `context` observed ones, [B, num, H, W, C] in [0, 1].

    Also returns a carry: chunks predicted one after the other equal the whole. `total` is the
    number of frames of all chunks together. Models with `predict` have `cycle`, of which contexts
    and chunks are multiples.
    """

  def reconstruct(
    self, params: Params, state: State, batch: Batch, rng: Array
  ) -> tuple[Array, Array]:
    """Decodes all frames of a video, from posteriors, and from priors one tick ahead.

    Returns: [B, T, H, W, C] each, in [0, 1].
    """

  def segment(self, params: Params, state: State, batch: Batch, rng: Array) -> Segments:
    """Splits pictures into slots."""

  def paint(self, params: Params, slots: Array) -> tuple[Array, Array]:
    """Decodes slots [..., D] to colours [..., H, W, 3] in [0, 1] and mask logits [..., H, W]."""

  def reconstruction_target(self, state: State) -> ReconstructionTarget | None:
    """Returns the target that training holds the reconstruction at; None without one."""

  def warnings(self, card: dict[str, Any]) -> list[str]:
    """Returns warnings, one sentence each, to print before training on the data set of a card."""

  def refresh(
    self,
    params: Params,
    state: State,
    rng: Array,
    temperature: Array | float,
    iterations: int = 20,
    num: int = 16,
  ) -> State:
    """Renews batch statistics by generated images, `iterations` batches of `num`, for sampling."""

  def histograms(self, params: Params, state: State, batch: Batch, rng: Array) -> dict[str, Array]:
    """Computes quantities whose distribution is worth watching, float32 of any shape."""


METHODS = frozenset(
  name
  for part in (Model, OptionalMethods)
  for name, _ in inspect.getmembers(part, inspect.isfunction)
  if not name.startswith('_')
)
ATTRIBUTES = frozenset(OptionalAttributes.__annotations__)


def missing(model: Any, names: Sequence[str]) -> list[str]:
  """Returns the names that a model lacks, methods with brackets: ['sample()', 'level_names'].

  Raises:
    ValueError: a name that is no part of this protocol.
  """
  if unknown := sorted(set(names) - METHODS - ATTRIBUTES):
    raise ValueError(f'{", ".join(unknown)} must be described in {__name__}')
  return [f'{n}()' if n in METHODS else n for n in names if not hasattr(model, n)]


def require(model: Any, names: Sequence[str], what: str, remedy: str = '') -> None:
  """Raises UserError if a model lacks attributes or methods.

  Args:
    model: model of a run.
    names: names of attributes and methods of this protocol.
    what: the feature that needs them, such as '--mode=sample'.
    remedy: what to do instead of writing them, such as 'set config.evals.ssim.every=0'.
  """
  if lacks := missing(model, names):
    remedies = ['give the model what models/protocol.py says', *([remedy] if remedy else [])]
    raise UserError(
      f'{what} needs {", ".join(lacks)}, which {type(model).__name__} lacks; '
      f'{" or ".join(remedies)}'
    )


def level_names(model: Any) -> tuple[str, ...]:
  """Returns the names of a model's levels, () where it has none."""
  return tuple(getattr(model, 'level_names', ()))


def check_images(model: Any, batch: Batch) -> None:
  """Raises UserError if a batch has pictures of another shape than the model's."""
  expected = (model.image_size, model.image_size, model.image_channels)
  if (actual := batch['image'].shape[1:]) != expected:
    raise UserError(
      f'the data has images {list(actual)}, but config.model.image_size and image_channels ask '
      f'for {list(expected)}; correct them, or config.data.name'
    )


def unroll_problems(model: Any) -> list[str]:
  """Returns the fault of `unroll`, one sentence or none."""
  if model.unroll == 'full' or (model.unroll.isdigit() and int(model.unroll) > 0):
    return []
  return [f"model.unroll={model.unroll!r} must be 'auto', 'full' or a number of blocks"]
