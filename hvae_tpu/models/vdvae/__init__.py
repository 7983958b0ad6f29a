"""VDVAE (Child, "Very Deep VAEs Generalize Autoregressive Models...", ICLR 2021, arXiv 2011.10650).

Reference: openai/vdvae; the switches that follow j-towns/vdvae-jax say so.
"""

import dataclasses
import functools

import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu import settings
from hvae_tpu.errors import UserError
from hvae_tpu.models import protocol
from hvae_tpu.models.protocol import Batch, Metrics, Params, State
from hvae_tpu.models.vdvae import layout
from hvae_tpu.models.vdvae.network import BlockConfig, Net
from hvae_tpu.nn import distributions, layers
from hvae_tpu.settings import setting


@dataclasses.dataclass(frozen=True)
class VDVAE:
  """Hyper-parameters, and the interface that the trainer and the evaluations use."""

  image_size: int = 32
  image_channels: int = 3
  width: int = 384  # channels at every resolution that custom_width_str does not name
  custom_width_str: str = ''  # 'res:width,...'
  zdim: int = 16  # latent channels of a group
  bottleneck_multiple: float = 0.25
  enc_blocks: str = ''  # required: RxN blocks, RdK a block with pooling by K
  dec_blocks: str = ''  # required: RxN blocks, RmM a block that adds resolution M
  no_bias_above: int = 64  # finest resolution that starts from a learned map
  input_mean: float = 127.5  # of the training pixels, 0..255
  input_std: float = 127.5
  likelihood: str = setting('dmol_torch', choices=('dmol_torch', 'dmol_exact', 'bernoulli'))
  num_mixtures: int = 10
  num_bits: int = setting(8, choices=(8, 5))  # of the target; the input keeps its 8 bits
  dmol_5bit_normalised: bool = False  # bins that tile [-1, 1]; the release's overlap a little
  target_crop: int = 0  # rows and columns of padding on each side that carry no likelihood
  kl_weight: float = setting(1.0, changeable=True)  # in training; the ELBO counts the KL once
  gelu_approximate: bool = False  # True: tanh form, as vdvae-jax
  kernel_init: str = setting('torch', choices=('torch', 'lecun'))  # lecun: as vdvae-jax
  output_temperature: float = setting(1.0, changeable=True)  # of drawn pixels
  output_statistic: str = setting('sample', choices=distributions.STATISTICS, changeable=True)
  sample_rounding: str = setting('round', choices=('round', 'truncate'), changeable=True)
  sample_snap: bool = setting(False, changeable=True)  # 5 bits: samples on the 32 levels
  dtype: str = setting('float32', choices=('float32', 'bfloat16'))  # of blocks and between them
  remat: str = setting('none', choices=layers.REMAT, changeable=True)
  unroll: str = setting('full', changeable=True)  # blocks per iteration of a loop, or 'full'

  def __post_init__(self):
    settings.check(self, 'config.model')
    errors = layout.problems(
      enc_blocks=self.enc_blocks,
      dec_blocks=self.dec_blocks,
      widths=self.custom_width_str,
      width=self.width,
      image_size=self.image_size,
      no_bias_above=self.no_bias_above,
    )
    errors += protocol.likelihood_problems(self)
    errors += [] if errors else self._number_problems()
    errors += protocol.unroll_problems(self)
    if errors:
      raise UserError('; '.join('config.' + error for error in errors))

  def _number_problems(self) -> list[str]:
    errors = [
      f'model.{name}={getattr(self, name)} must be at least 1'
      for name in ('image_size', 'image_channels', 'width', 'zdim', 'num_mixtures')
      if getattr(self, name) < 1
    ]
    errors += [
      f'model.{name}={getattr(self, name)} must be positive'
      for name in ('input_std', 'output_temperature')
      if getattr(self, name) <= 0
    ]
    widths = [self.width_at(run.res) for run in (*self.encoder_runs, *self.decoder_runs)]
    if not errors and min(widths) * self.bottleneck_multiple < 1:
      errors.append(
        f'model.bottleneck_multiple={self.bottleneck_multiple} of the width {min(widths)} is less '
        f'than one channel'
      )
    return errors

  # What the network reads.

  @functools.cached_property
  def encoder_runs(self) -> list[layout.Run]:
    return layout.encoder_runs(self.enc_blocks)

  @functools.cached_property
  def decoder_runs(self) -> list[layout.Run]:
    return layout.decoder_runs(self.dec_blocks)

  @functools.cached_property
  def _widths(self) -> dict[int, int]:
    return layout.parse_widths(self.custom_width_str)

  def width_at(self, res: int) -> int:
    return self._widths.get(res, self.width)

  @property
  def block_config(self) -> BlockConfig:
    return BlockConfig(self.gelu_approximate, self.kernel_init, jnp.dtype(self.dtype))

  @property
  def out_channels(self) -> int:
    return self.image_channels if self.likelihood == 'bernoulli' else 10 * self.num_mixtures

  def stack(self, block, count: int, in_axes):
    unroll = count if self.unroll == 'full' else int(self.unroll)
    return layers.stack_blocks(block, count, in_axes, self.remat, unroll)

  # The objective.

  @functools.cached_property
  def _sides(self) -> tuple[int, ...]:
    return tuple(run.res for run in self.decoder_runs for _ in range(run.count))

  @functools.cached_property
  def level_names(self) -> tuple[str, ...]:
    return tuple(f'res{res:02d}/group{i:02d}' for i, res in enumerate(self._sides))

  @property
  def level_sizes(self) -> Array:
    """Latent dimensions of every group, [L]."""
    return jnp.array([res**2 * self.zdim for res in self._sides], jnp.float32)

  @property
  def num_dims(self) -> int:
    """H * W * C of the target."""
    return (self.image_size - 2 * self.target_crop) ** 2 * self.image_channels

  def scale_input(self, image: Array) -> Array:
    """uint8 -> float32 of about zero mean and unit variance."""
    return (image.astype(jnp.float32) - self.input_mean) * (1 / self.input_std)

  def scale_target(self, image: Array) -> Array:
    """uint8 -> [-1, 1] (`num_bits` levels), or [0, 1] for the Bernoulli likelihood."""
    if self.likelihood == 'bernoulli':
      return image.astype(jnp.float32) / 255
    return distributions.scale_pixels(image, self.num_bits)

  def mixture(self, out: Array) -> distributions.LogisticMixture:
    """The network's output as a mixture; what its scales are depends on the likelihood."""
    if self.likelihood == 'dmol_exact':
      return distributions.mixture_by_component(out, self.num_mixtures)
    return distributions.mixture_by_colour(out, self.num_mixtures)

  def log_likelihood(self, out: Array, target: Array) -> Array:
    """Log-probability of the target given the network's output, per pixel [B, H, W], nats."""
    if self.likelihood == 'bernoulli':
      return distributions.bernoulli_log_prob(out, target).sum(-1)
    half_bin, upper_edge = 1 / (2**self.num_bits - 1), distributions.EDGE
    if self.num_bits == 5 and self.dmol_5bit_normalised:
      half_bin, upper_edge = 4 / 127.5, 244 / 127.5 - 1
    is_exact = self.likelihood == 'dmol_exact'
    log_prob = distributions.dmol_exact_log_prob if is_exact else distributions.dmol_log_prob
    return log_prob(self.mixture(out), target, half_bin=half_bin, upper_edge=upper_edge)

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    protocol.check_images(self, batch)
    # A loop compiles faster than its copies, and makes the same parameters.
    net = Net(dataclasses.replace(self, unroll='1', remat='none'))
    params_rng, sample_rng = jax.random.split(rng)
    x = self.scale_input(batch['image'])
    variables = net.init({'params': params_rng, 'sample': sample_rng}, x, len(x))
    return variables['params'], {}

  def loss(
    self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array, train: bool
  ) -> tuple[Array, tuple[State, Metrics]]:
    """Nats per dimension. No schedule: `step` is not used."""
    metrics = self.pruned(params, state, batch, rng, None)
    kl_weight = self.kl_weight if train else 1.0
    loss = metrics['nll'] + kl_weight * metrics['kl']
    return loss.mean() / self.num_dims, (state, metrics)

  def pruned(
    self, params: Params, state: State, batch: Batch, rng: Array, variates: Array | None
  ) -> Metrics:
    """The metrics where only `variates` [L, V] (None: all) are drawn from the posterior."""
    out, levels = self._infer(params, batch['image'], rng, variates)
    nll = self._nll(out, batch['image'])
    return distributions.elbo_metrics(nll, distributions.kl_of_runs(levels), self.num_dims)

  def histograms(self, params: Params, state: State, batch: Batch, rng: Array) -> dict[str, Array]:
    """Targets, draws from the likelihood, and means and log-scales of its components."""
    latent_rng, pixel_rng = jax.random.split(rng)
    out, _ = self._infer(params, batch['image'], latent_rng)
    found = {'targets': self.scale_target(batch['image']), 'outputs': self.draw(out, pixel_rng)}
    if self.likelihood == 'bernoulli':
      return found
    mixture, scales = self.mixture(out), self.mixture(out).scales
    if self.likelihood == 'dmol_exact':
      scales = -jnp.log(jax.nn.softplus(scales))
    return {**found, 'mixture_means': mixture.means, 'mixture_log_scales': scales}

  def _nll(self, out: Array, image: Array) -> Array:
    """Negative log-likelihood of uint8 images, [B], nats."""
    crop = slice(self.target_crop, self.image_size - self.target_crop)
    log_prob = self.log_likelihood(out, self.scale_target(image))
    return -log_prob[:, crop, crop].sum((1, 2))

  # Inference and generation.

  def log_weights(self, params: Params, state: State, batch: Batch, rng: Array) -> Array:
    out, levels = self._infer(params, batch['image'], rng)
    return distributions.log_ratio_of_runs(levels) - self._nll(out, batch['image'])

  def encode(
    self,
    params: Params,
    state: State,
    batch: Batch,
    rng: Array,
    variates: Array | None = None,
  ) -> distributions.Latents:
    _, levels = self._infer(params, batch['image'], rng, variates)
    return layers.groups_of_runs(levels)

  def kl_per_variate(self, params: Params, state: State, batch: Batch, rng: Array) -> Array:
    return distributions.kl_of_runs(self._infer(params, batch['image'], rng)[1])

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
    is_exact = self.likelihood == 'dmol_exact'
    sample = distributions.dmol_exact_sample if is_exact else distributions.dmol_sample
    return sample(rng, self.mixture(out), temperature=self.output_temperature)

  def pictures(self, out: Array, rng: Array) -> Array:
    """`draw`, or the mean by `output_statistic`, as uint8, black where nothing was modelled."""
    has_draw = self.output_statistic == 'sample' or self.likelihood == 'bernoulli'
    x = self.draw(out, rng) if has_draw else distributions.dmol_mean(self.mixture(out))
    if self.likelihood == 'bernoulli':
      image = jnp.round(255 * x).astype(jnp.uint8)
      return distributions.blank_padding(image, self.target_crop)
    image = distributions.to_uint8(x, self.sample_rounding)
    bin_width = 2 ** (8 - self.num_bits)
    image = image // bin_width * bin_width if self.sample_snap else image
    return distributions.blank_padding(image, self.target_crop)

  def _infer(
    self, params: Params, image: Array, rng: Array, variates: Array | None = None
  ) -> tuple[Array, list[distributions.Level]]:
    x, rngs = self.scale_input(image), {'sample': rng}
    return Net(self).apply({'params': params}, x, len(x), variates=variates, rngs=rngs)

  def _generate(self, params, rng, num, temperature, z=None, given=None) -> Array:
    latent_rng, pixel_rng = jax.random.split(rng)
    out, _ = self._top_down(params, latent_rng, num, temperature, z, given)
    return self.pictures(out, pixel_rng)

  def _top_down(
    self, params, rng, num, temperature, z=None, given=None, noise=None
  ) -> tuple[Array, list[distributions.Level]]:
    temperature = layers.per_level(temperature, len(self.level_names))
    rngs = {'sample': rng}
    args = None, num, z, given, temperature, None, noise
    return Net(self).apply({'params': params}, *args, rngs=rngs)
