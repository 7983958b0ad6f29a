"""Clockwork VAE (Saxena, Ba, Hafner, NeurIPS 2021, arXiv 2102.09532): long video.

References: vaibhavsaxena11/cwvae (TensorFlow), and its JAX port juliuskunze/cwvae-jax, whose
conventions are followed where the two differ.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any, ClassVar

import flax
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu import settings
from hvae_tpu.errors import UserError
from hvae_tpu.models import protocol
from hvae_tpu.models.cwvae import frames, objective
from hvae_tpu.models.cwvae.cells import LevelOutputs
from hvae_tpu.models.cwvae.network import Net, RolloutState, reset_masks
from hvae_tpu.models.cwvae.recurrence import RSSMConfig
from hvae_tpu.models.protocol import Batch, Metrics, Params, State
from hvae_tpu.nn import distributions, layers
from hvae_tpu.settings import setting


@flax.struct.dataclass
class PredictionCarry:
  """State of a prediction between two chunks.

  Attributes:
    rollout: state of the levels after the last frame.
    whole: whether the last chunk ended with a tick of the top level, so that another may follow.
  """

  rollout: RolloutState
  whole: bool = flax.struct.field(pytree_node=False)


@dataclasses.dataclass(frozen=True)
class CWVAE:
  """Hyper-parameters and methods of a Clockwork VAE.

  Losses are in nats per frame (not per pixel), also those of the slow levels.
  """

  image_size: int = setting(frames.SIZE, choices=(frames.SIZE,))  # pixels a side of a frame
  image_channels: int = setting(3, least=1)
  levels: int = setting(3, least=1)
  tmp_abs_factor: int = setting(6, least=1)  # ticks of a level during one of the level above
  filters: int = setting(32, least=1)  # channels of the first convolution
  channels_mult: int = setting(1, least=1)
  enc_dense_layers: int = setting(3, least=0)  # between the features of one level and of the next
  enc_dense_embed_size: int = setting(1000, least=1)
  cell_type: str = setting('RSSMCell', choices=('RSSMCell',))
  cell_stoch_size: int = setting(20, least=1)
  cell_deter_size: int = setting(200, least=1)
  cell_embed_size: int = setting(200, least=1)
  cell_min_stddev: float = setting(1e-4, least=0)
  cell_mean_only: bool = False  # samples are means
  cell_reset_state: bool = False  # True: `reset_mask` sets the sample before some ticks to 0
  reset_mask: str = setting('reference', choices=('reference', 'clock'))  # see `reset_masks`
  # T or F for every level from the bottom: whether it sees context frames; '' is T for all.
  use_obs: str = setting('', changeable=True)
  train_use_obs: bool = False  # True: use_obs in training too, which the references never do
  # deviation of pixels, which lie in [0, 1]
  dec_stddev: float = setting(1.0, above=0, changeable=True)
  dec_activation: str = setting('tanh', choices=('tanh', 'sigmoid', 'identity'))
  # Weight of the KL in training, one number or one per level.
  beta: tuple[float, ...] = setting((1.0,), least=0, changeable=True)
  free_nats: float = setting(0.0, least=0, changeable=True)  # nats of a level, per sequence
  # The posterior's share of the KL's gradient; None: no balancing.
  kl_grad_post_perc: float | None = setting(None, least=0, most=1, changeable=True)
  # reference: the posterior gets no gradient from the balanced KL.
  kl_balance: str = setting('intended', choices=('intended', 'reference'), changeable=True)
  kernel_init: str = setting('lecun', choices=('lecun', 'keras'))  # keras: as the TensorFlow code
  # dtype of convolutions and products
  dtype: str = setting('float32', choices=('float32', 'bfloat16'))
  convolutions: str = setting('direct', choices=('direct', 'products'), changeable=True)
  remat: str = setting('none', choices=layers.REMAT, changeable=True)  # recomputation of ticks
  unroll: str = setting('1', changeable=True)  # ticks per iteration of a loop, or 'full'

  # A tick is a few small products: copies of it win little, and take long to compile.
  AUTO: ClassVar[Mapping[str, Mapping[str, str]]] = {
    'unroll': {'cpu': '1', 'tpu': '4', 'gpu': '4'},
    'convolutions': {'cpu': 'products', 'tpu': 'direct', 'gpu': 'direct'},
  }

  def __post_init__(self):
    settings.check(self, 'config.model')
    errors = protocol.unroll_problems(self)
    if set(self.use_obs) - set('TF') or len(self.use_obs) not in (0, self.levels):
      errors.append(
        f'model.use_obs={self.use_obs!r} must have T or F for each of the {self.levels} levels, '
        f'the lowest first, or be empty'
      )
    if len(self.beta) not in (1, self.levels):
      errors.append(
        f'model.beta has {len(self.beta)} entries; it must have 1, or {self.levels}, one per level'
      )
    if errors:
      raise UserError('; '.join('config.' + error for error in errors))

  # Settings in the form that the network reads.

  @property
  def rssm(self) -> RSSMConfig:
    """Settings of the recurrent cells."""
    return RSSMConfig(
      stoch=self.cell_stoch_size,
      deter=self.cell_deter_size,
      embed=self.cell_embed_size,
      min_std=self.cell_min_stddev,
      mean_only=self.cell_mean_only,
      init=self.kernel_init,
      dtype=jnp.dtype(self.dtype),
      remat=self.remat,
      unroll=self.unroll,
    )

  @property
  def dense_sizes(self) -> tuple[int, ...]:
    """Sizes of the layers between the features of a level and those of the next."""
    hidden = (self.enc_dense_embed_size,) * (self.enc_dense_layers - 1)
    return (*hidden, 32 * self.filters * self.channels_mult) if self.enc_dense_layers else ()

  @property
  def cycle(self) -> int:
    """Number of frames in one tick of the top level."""
    return self.tmp_abs_factor ** (self.levels - 1)

  # The objective.

  @functools.cached_property
  def level_names(self) -> tuple[str, ...]:
    return tuple(f'level{i}' for i in range(self.levels))

  def scale(self, video: Array) -> Array:
    """Scales uint8 to [0, 1]."""
    return video.astype(jnp.float32) / 255

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    self._check(batch)
    # One frame suffices to make the parameters.
    x = jnp.zeros((1, 1, *batch['video'].shape[2:]))
    return Net(self).init(rng, x, rng)['params'], {}

  def loss(
    self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array, train: bool
  ) -> tuple[Array, tuple[State, Metrics]]:
    """Returns nats per frame. There is no schedule: `step` is not used."""
    x = self.scale(batch['video'])
    length = x.shape[1]
    observed = self._observed_levels if self.train_use_obs else (True,) * self.levels
    levels = self._observe(params, batch, rng, observed)[0]
    mean = self._apply(params, 'decode', levels[0].output)
    nll = -distributions.normal_log_prob(x, mean, self.dec_stddev).sum((1, 2, 3, 4))
    metrics = self._metrics(nll, levels, length)
    weighted = objective.weighted_kl(self, levels) / length
    metrics['weighted_kl_per_frame'] = weighted
    loss = nll.mean() / length + weighted
    return loss if train else metrics['neg_elbo_per_frame'].mean(), (state, metrics)

  def _metrics(self, nll: Array, levels: list[LevelOutputs], length: int) -> Metrics:
    """Returns `nll`, `kl`, `neg_elbo` [B], `kl_per_level` [B, L] (nats per sequence) and more."""
    per_level = lambda value: jnp.stack([value(level) for level in levels], axis=1)
    kl = per_level(lambda level: level.posterior.kl(level.prior).sum((1, 2)))
    metrics = {'nll': nll, 'kl': kl.sum(1), 'neg_elbo': nll + kl.sum(1)}
    metrics |= {f'{name}_per_frame': value / length for name, value in metrics.items()}
    entropies = {
      'entropy_prior': per_level(lambda level: objective.entropy(level.prior)),
      'entropy_posterior': per_level(lambda level: objective.entropy(level.posterior)),
    }
    per_frame = {'kl': kl, **entropies}
    metrics |= {f'{name}_per_level_per_frame': v / length for name, v in per_frame.items()}
    return {**metrics, 'kl_per_level': kl}

  def kl_per_variate(self, params: Params, state: State, batch: Batch, rng: Array) -> Array:
    levels, _ = self._observe(params, batch, rng, (True,) * self.levels)
    return jnp.stack([level.posterior.kl(level.prior).sum(1) for level in levels], axis=1)

  # Inference and generation.

  def reconstruct(
    self, params: Params, state: State, batch: Batch, rng: Array
  ) -> tuple[Array, Array]:
    """Decodes frames from posteriors, and from priors one tick ahead: [B, T, H, W, C] each."""
    levels, _ = self._observe(params, batch, rng, self._observed_levels)
    lowest = levels[0]
    noise = distributions.normal(jax.random.fold_in(rng, self.levels), lowest.sample.shape)
    ahead = lowest.prior.mean if self.cell_mean_only else lowest.prior.sample(noise)
    decode = lambda level: self._apply(params, 'decode', level.output)
    return decode(lowest), decode(lowest._replace(sample=ahead))

  def predict(
    self,
    params: Params,
    state: State,
    batch: Batch,
    rng: Array,
    context: int,
    carry: PredictionCarry | None = None,
    *,
    num: int,
    total: int = 0,
  ) -> tuple[Array, PredictionCarry]:
    """Predicts the frames after the context, from latents drawn from their priors.

    Args:
      batch: `video` [B, T, H, W, C]; only the first `context` frames are read.
      rng: the same for all chunks of a prediction.
      context: frames; a multiple of `cycle`.
      carry: carry of the previous chunk; None: the first chunk, which observes the context.
      num: frames to predict; a multiple of `cycle`, except for the last chunk.
      total: frames of all chunks together, which the reference's reset masks depend on; 0: `num`.

    Returns:
      Means of the pixels [B, num, H, W, C], float32, which may leave [0, 1]; and the carry.

    Raises:
      UserError: lengths or frames that do not fit.
    """
    self._check(batch)
    self._check_context(context, batch['video'].shape[1])
    if carry is None:
      observed = {'video': batch['video'][:, :context]}
      rollout = self._observe(params, observed, rng, self._observed_levels)[1]
      carry = PredictionCarry(rollout, whole=True)
    if not carry.whole:
      raise UserError(
        f'only the last chunk of a prediction may end amid a tick of the top level; give the '
        f'others num=a multiple of {self.cycle} frames'
      )
    keep = self._keep(max(total, num), (carry.rollout.frame - context, num))
    levels, rollout = self._apply(
      params, 'unroll', (None,) * self.levels, num, carry.rollout, rng, keep
    )
    mean = self._apply(params, 'decode', levels[0].output)
    return mean, PredictionCarry(rollout, whole=num % self.cycle == 0)

  @property
  def _observed_levels(self) -> tuple[bool, ...]:
    """Whether each level sees context frames, from the bottom."""
    return tuple(letter == 'T' for letter in self.use_obs or 'T' * self.levels)

  def _apply(self, params: Params, method: str, *args: Any) -> Any:
    return Net(self).apply({'params': params}, *args, method=method)

  def _observe(
    self, params: Params, batch: Batch, rng: Array, observed: tuple[bool, ...]
  ) -> tuple[list[LevelOutputs], RolloutState]:
    """Runs the levels along a video; level l sees its features where `observed[l]`."""
    self._check(batch)
    num, length = batch['video'].shape[:2]
    features = self._apply(params, 'features', self.scale(batch['video']))
    features = [f if see else None for f, see in zip(features, observed, strict=True)]
    start = self._apply(params, 'initial_state', num)
    return self._apply(params, 'unroll', features, length, start, rng, self._keep(length))

  def _keep(self, total: int, part: tuple[Array, int] | None = None) -> list[Array | None]:
    """Returns `keep` of `Net.unroll` for `part` (start, length) of `total` frames, or for all."""
    if not self.cell_reset_state:
      return [None] * self.levels
    rates = [self.tmp_abs_factor**level for level in range(self.levels)]
    masks = reset_masks(self.reset_mask, self.tmp_abs_factor, [-(-total // r) for r in rates])
    if part is None:
      return masks
    start, length = part
    return [
      jax.lax.dynamic_slice_in_dim(jnp.asarray(mask), start // rate, -(-length // rate))
      for mask, rate in zip(masks, rates, strict=True)
    ]

  def _check(self, batch: Batch) -> None:
    expected = (self.image_size, self.image_size, self.image_channels)
    if (shape := batch['video'].shape[2:]) != expected:
      raise UserError(
        f'the data has frames {list(shape)}, but config.model.image_size and image_channels ask '
        f'for {list(expected)}; correct them, or config.data.name'
      )

  def _check_context(self, context: int, length: int) -> None:
    if context % self.cycle:
      below = context // self.cycle * self.cycle
      raise UserError(
        f'a context of {context} frames must be a multiple of {self.cycle}, which is '
        f'config.model.tmp_abs_factor={self.tmp_abs_factor} to the power of '
        f'config.model.levels={self.levels} - 1; try {below} or {below + self.cycle}'
      )
    if length < context:
      raise UserError(
        f'sequences of {length} frames are shorter than the context of {context}; raise '
        f'config.data.eval_seq_len or lower the context'
      )
