"""VDVAE (Child, "Very Deep VAEs Generalize Autoregressive Models...", ICLR 2021, arXiv 2011.10650).

Reference: openai/vdvae; the switches that follow j-towns/vdvae-jax say so.
"""

import dataclasses
import functools

import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models import hierarchy
from hvae_tpu.models.protocol import Batch, Metrics, Params, State
from hvae_tpu.models.vdvae import layout
from hvae_tpu.models.vdvae.network import BlockConfig, Net
from hvae_tpu.nn import distributions, layers
from hvae_tpu.settings import setting


@dataclasses.dataclass(frozen=True)
class VDVAE(hierarchy.PrunableHierarchy):
  """Hyper-parameters, and the interface that the trainer and the evaluations use."""

  image_size: int = setting(32, least=1)
  image_channels: int = setting(3, least=1)
  width: int = setting(384, least=1)  # channels at resolutions without a custom width
  custom_width_str: str = ''  # 'res:width,...'
  zdim: int = setting(16, least=1)  # latent channels of a group
  bottleneck_multiple: float = setting(0.25, above=0)
  enc_blocks: str = ''  # required: RxN blocks at resolution R, RdK a block with pooling by K
  dec_blocks: str = ''  # required: RxN blocks at resolution R, RmM a block that adds resolution M
  no_bias_above: int = setting(64, least=0)  # finest resolution that starts from a learned map
  input_mean: float = setting(127.5, least=0, most=255)  # mean of the training pixels, 0..255
  input_std: float = setting(127.5, above=0)  # deviation of the training pixels, 0..255
  likelihood: str = setting('dmol_torch', choices=('dmol_torch', 'dmol_exact', 'bernoulli'))
  num_mixtures: int = setting(10, least=1)
  num_bits: int = setting(8, choices=(8, 5))  # bits of the target; the input keeps 8
  dmol_5bit_normalised: bool = False  # bins that tile [-1, 1]; the release's bins overlap
  target_crop: int = setting(0, least=0)  # rows and columns on each side without a likelihood
  kl_weight: float = setting(1.0, least=0, changeable=True)  # only in training
  gelu_approximate: bool = False  # True: tanh form, as vdvae-jax
  kernel_init: str = setting('torch', choices=('torch', 'lecun'))  # lecun: as vdvae-jax
  # temperature of sampled pixels
  output_temperature: float = setting(1.0, above=0, changeable=True)
  output_statistic: str = setting('sample', choices=distributions.STATISTICS, changeable=True)
  # uint8 from sampled pixels; the release truncates
  sample_rounding: str = setting('round', choices=('round', 'truncate'), changeable=True)
  sample_snap: bool = setting(False, changeable=True)  # 5 bits: samples on the 32 levels
  dtype: str = setting('float32', choices=('float32', 'bfloat16'))  # inside and between blocks
  remat: str = setting('none', choices=layers.REMAT, changeable=True)
  unroll: str = setting('full', changeable=True)  # blocks per iteration of a loop, or 'full'

  def problems(self) -> list[str]:
    """Returns a sentence for each pair of fields that do not fit together."""
    errors = layout.problems(
      enc_blocks=self.enc_blocks,
      dec_blocks=self.dec_blocks,
      widths=self.custom_width_str,
      width=self.width,
      image_size=self.image_size,
      no_bias_above=self.no_bias_above,
    )
    if errors:
      return errors
    narrowest = min(self.width_at(run.res) for run in (*self.encoder_runs, *self.decoder_runs))
    if narrowest * self.bottleneck_multiple < 1:
      errors.append(
        f'model.bottleneck_multiple={self.bottleneck_multiple} of the width {narrowest} is less '
        f'than one channel'
      )
    return errors

  # The network's layout.

  @functools.cached_property
  def encoder_runs(self) -> list[layout.Run]:
    """Runs of the bottom-up side, the finest first."""
    return layout.encoder_runs(self.enc_blocks)

  @functools.cached_property
  def decoder_runs(self) -> list[layout.Run]:
    """Runs of the top-down side, the coarsest first."""
    return layout.decoder_runs(self.dec_blocks)

  @functools.cached_property
  def sides(self) -> tuple[int, ...]:
    """Side of the latent map of every group."""
    return tuple(run.res for run in self.decoder_runs for _ in range(run.count))

  @functools.cached_property
  def _widths(self) -> dict[int, int]:
    return layout.parse_widths(self.custom_width_str)

  def width_at(self, res: int) -> int:
    """Returns the number of channels at a resolution."""
    return self._widths.get(res, self.width)

  @property
  def block_config(self) -> BlockConfig:
    """Settings that all blocks share."""
    return BlockConfig(self.gelu_approximate, self.kernel_init, jnp.dtype(self.dtype))

  @property
  def network(self) -> Net:
    """The module of the whole network."""
    return Net(self)

  # The objective.

  def loss(
    self, params: Params, state: State, batch: Batch, *, rng: Array, step: Array, train: bool
  ) -> tuple[Array, tuple[State, Metrics]]:
    """Returns nats per dimension. There is no schedule: `step` is not used."""
    metrics = self.pruned(params, state, batch, rng, None)
    kl_weight = self.kl_weight if train else 1.0
    loss = metrics['nll'] + kl_weight * metrics['kl']
    return loss.mean() / self.num_dims, (state, metrics)

  # Images, and their likelihood.

  def scale_input(self, image: Array) -> Array:
    """Returns uint8 images as float32 of about zero mean and unit variance."""
    return (image.astype(jnp.float32) - self.input_mean) * (1 / self.input_std)

  def mixture(self, out: Array) -> distributions.LogisticMixture:
    """Returns the mixture of output channels; the likelihood decides what its scales mean."""
    if self.likelihood == 'dmol_exact':
      return distributions.mixture_by_component(out, self.num_mixtures)
    return distributions.mixture_by_colour(out, self.num_mixtures)

  def log_scales(self, mixture: distributions.LogisticMixture) -> Array:
    """Returns the log-scales of the mixture's components."""
    is_exact = self.likelihood == 'dmol_exact'
    return -jnp.log(jax.nn.softplus(mixture.scales)) if is_exact else mixture.scales

  def log_likelihood(self, out: Array, target: Array) -> Array:
    """Returns the log-probability of the target given output channels, [B, H, W], nats."""
    if self.likelihood == 'bernoulli':
      return distributions.bernoulli_log_prob(out, target).sum(-1)
    half_bin, upper_edge = 1 / (2**self.num_bits - 1), distributions.EDGE
    if self.num_bits == 5 and self.dmol_5bit_normalised:
      half_bin, upper_edge = 4 / 127.5, 244 / 127.5 - 1
    is_exact = self.likelihood == 'dmol_exact'
    log_prob = distributions.dmol_exact_log_prob if is_exact else distributions.dmol_log_prob
    return log_prob(self.mixture(out), target, half_bin=half_bin, upper_edge=upper_edge)

  def draw(self, out: Array, rng: Array) -> Array:
    """Returns one draw from the likelihood in the scale of the target (Bernoulli: its mean)."""
    if self.likelihood == 'bernoulli':
      return jax.nn.sigmoid(out / self.output_temperature)
    is_exact = self.likelihood == 'dmol_exact'
    sample = distributions.dmol_exact_sample if is_exact else distributions.dmol_sample
    return sample(rng, self.mixture(out), temperature=self.output_temperature)

  def to_uint8(self, x: Array) -> Array:
    """Returns images in the scale of the target as uint8."""
    if self.likelihood == 'bernoulli':
      return jnp.round(255 * x).astype(jnp.uint8)
    image = distributions.to_uint8(x, self.sample_rounding)
    bin_width = 2 ** (8 - self.num_bits)
    return image // bin_width * bin_width if self.sample_snap else image
