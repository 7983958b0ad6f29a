"""The parts that deep hierarchical image models share: VDVAE, Efficient-VDVAE and NVAE.

Networks take `Overrides` and turn them into one `GroupDraw` a block (`draws_of_runs`); each block
returns a `Level`. The dataclasses of the systems inherit their interface from `ImageHierarchy`, or
from `PrunableHierarchy`, and add their own network, scaling and likelihood.

A run is a stack of equal blocks that are scanned together. Its draws and levels are stacked too:
each leaf has a leading axis [count].
"""

from collections.abc import Iterator
import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu import settings
from hvae_tpu.errors import UserError
from hvae_tpu.models import protocol
from hvae_tpu.models.protocol import Batch, Metrics, Params, State
from hvae_tpu.nn import distributions, layers
from hvae_tpu.nn.distributions import Group, Latents, Normal


class Overrides(NamedTuple):
  """Values that replace the usual draws of a top-down pass; None changes nothing.

  Attributes:
    latents: z of every group, [B, h, w, zdim] each.
    given: [L] or [L, V] bool, which of `latents` to use. The others are drawn.
    temperature: [L], factors of the prior's standard deviations. Inference ignores them.
    variates: [L, V] bool. Inference draws the others from the prior.
    noise: [B, h, w, zdim] for every group, in place of standard normal draws.
  """

  latents: tuple[Array, ...] | None = None
  given: Array | None = None
  temperature: Array | None = None
  variates: Array | None = None
  noise: tuple[Array, ...] | None = None


NO_OVERRIDES = Overrides()


class GroupDraw(NamedTuple):
  """Inputs that decide how one group of latent variables is drawn.

  Attributes:
    noise: [B, h * w * zdim], standard normal.
    z: [B, h, w, zdim], values to use where `given` is true, or None.
    given: [] or [zdim] bool, or None.
    temperature: [], factor of the prior's standard deviation, or None.
    variates: [zdim] bool, the channels that have a posterior; None: all.
  """

  noise: Array
  z: Array | None = None
  given: Array | None = None
  temperature: Array | None = None
  variates: Array | None = None

  def prune(self, posterior: Normal, prior: Normal) -> Normal:
    """Returns the posterior, with the prior in the channels that `variates` leaves out."""
    if self.variates is None:
      return posterior
    pairs = zip(posterior, prior, strict=True)
    return Normal(*(jnp.where(self.variates, *pair) for pair in pairs))

  def prune_kl(self, kl: Array) -> Array:
    """Returns the KL [B, h, w, zdim] with exact zeros in the channels that are left out."""
    return kl if self.variates is None else jnp.where(self.variates, kl, 0.0)

  def sample(self, dist: Normal) -> Array:
    """Returns the draw from `dist` that `noise` stands for, [B, h, w, zdim]."""
    return dist.sample(self.noise.reshape(dist.mean.shape))

  def replace_given(self, sample: Array) -> Array:
    """Returns the draw with the values of `z` where `given` is true."""
    return sample if self.z is None else jnp.where(self.given, self.z, sample)


class Level(NamedTuple):
  """The results of one block of a hierarchy.

  Attributes:
    group: its latent variables.
    kl: [B, zdim], KL of their distribution from the prior, summed over space, nats.
    log_q, log_p: [B], log-density of z in their distribution and in the prior.
  """

  group: Group
  kl: Array
  log_q: Array
  log_p: Array


def make_level(dist: Normal, prior: Normal, z: Array, kl: Array) -> Level:
  """Returns the results for z [B, h, w, zdim] drawn from `dist`; `kl` is per element."""
  log_q, log_p = (d.log_prob(z).sum((1, 2, 3)) for d in (dist, prior))
  return Level(Group(dist.mean, dist.std, z), kl.sum((1, 2)), log_q, log_p)


def kl_of_runs(levels: list[Level]) -> Array:
  """Joins the KL of all runs: [B, L, V], nats."""
  return jnp.concatenate([level.kl for level in levels]).swapaxes(0, 1)


def log_ratio_of_runs(levels: list[Level]) -> Array:
  """Sums log p(z) - log q(z | x) over all groups, [B], nats."""
  return sum((level.log_p - level.log_q).sum(0) for level in levels)


def groups_of_runs(levels: list[Level]) -> Latents:
  """Returns the latent variables of all groups, unstacked, in order of execution."""
  return tuple(g for level in levels for g in layers.unstack(level.group, len(level.kl)))


def draws_of_runs(
  rng: Array, num: int, sizes: list[tuple[int, int]], overrides: Overrides
) -> Iterator[GroupDraw]:
  """Yields the stacked draws of one run after the other.

  Args:
    rng: key of the standard normal noise.
    num: B.
    sizes: (count, size) of every run: its blocks, and the latent dimensions of a block.
    overrides: overrides of the whole pass.
  """
  ends = itertools.accumulate(count for count, _ in sizes)
  noise_of_runs = _noise_of_runs(rng, num, sizes, overrides.noise)
  for (count, _), end, noise in zip(sizes, ends, noise_of_runs, strict=True):
    run = slice(end - count, end)
    part = lambda array, run=run: None if array is None else array[run]
    z = None if overrides.latents is None else jnp.stack(overrides.latents[run])
    others = (overrides.given, overrides.temperature, overrides.variates)
    yield GroupDraw(noise, z, *map(part, others))


def _noise_of_runs(
  rng: Array, num: int, sizes: list[tuple[int, int]], noise: tuple[Array, ...] | None
) -> list[Array]:
  """Returns the standard normal noise of every run, [count, B, size].

  It is one draw, because each call costs compilation. It is flat per block, because a TPU would pad
  a minor axis of `zdim` to 128.
  """
  if noise is None:
    draws = distributions.normal(rng, (num, sum(count * size for count, size in sizes)))
  else:
    draws = jnp.concatenate([part.reshape(num, -1) for part in noise], axis=1)
  ends = itertools.accumulate(count * size for count, size in sizes)
  return [
    draws[:, end - count * size : end].reshape(num, count, size).swapaxes(0, 1)
    for (count, size), end in zip(sizes, ends, strict=True)
  ]


class ImageHierarchy:
  """Interface of a hierarchical image model, for dataclasses to inherit.

  A system has the fields `image_size`, `image_channels`, `target_crop`, `zdim`, `likelihood`,
  `remat` and `unroll`, and provides:
    problems(): sentences about fields that do not fit together, each beginning 'model.'.
    sides: side of the latent map of every group, in order of execution.
    scale_input(image): uint8 -> the scale that the network reads.
    scale_target(image): uint8 -> the scale of the likelihood.
    run_network(params, state, x, num, rng, overrides): (output channels, one `Level` a run). x is a
      scaled image for inference, None for generation; batch statistics stay as they are.
    log_likelihood(out, target): log-probability per pixel, [B, H, W], nats.
    pictures(out, rng): uint8 images from output channels.
  """

  LEVEL_NAME = 'res{side:02d}/group{group:02d}'

  def __post_init__(self):
    settings.check(self, 'config.model')
    errors = self.problems() + self._likelihood_problems() + protocol.unroll_problems(self)
    if errors:
      raise UserError('; '.join('config.' + error for error in errors))

  def _likelihood_problems(self) -> list[str]:
    errors = []
    if self.likelihood != 'bernoulli' and self.image_channels != 3:
      errors.append(
        f'model.likelihood={self.likelihood} chains three colours; '
        f'model.image_channels={self.image_channels} must be 3 (or the likelihood bernoulli)'
      )
    if 2 * self.target_crop >= self.image_size:
      errors.append(
        f'model.target_crop={self.target_crop} leaves nothing of model.image_size={self.image_size}'
      )
    return errors

  def stack(self, block: type, count: int, in_axes: Any) -> type:
    """Returns a module of `count` scanned copies of a block, executed as the fields say."""
    unroll = count if self.unroll == 'full' else int(self.unroll)
    return layers.stack_blocks(block, count, in_axes, self.remat, unroll)

  @functools.cached_property
  def level_names(self) -> tuple[str, ...]:
    """Names of the groups, the coarsest first."""
    return tuple(self.LEVEL_NAME.format(side=s, group=i) for i, s in enumerate(self.sides))

  @property
  def level_sizes(self) -> Array:
    """Latent dimensions of every group, [L]."""
    return jnp.array([side**2 * self.zdim for side in self.sides], jnp.float32)

  @property
  def num_dims(self) -> int:
    """H * W * C of the target."""
    return (self.image_size - 2 * self.target_crop) ** 2 * self.image_channels

  @property
  def quick_to_compile(self) -> 'ImageHierarchy':
    """The same model with loops in place of copies; `init` makes the same parameters."""
    return dataclasses.replace(self, unroll='1', remat='none')

  # One pass through the network.

  def infer(
    self, params: Params, state: State, image: Array, rng: Array, variates: Array | None = None
  ) -> tuple[Array, list[Level]]:
    """Runs inference on uint8 images; returns output channels and levels."""
    x = self.scale_input(image)
    return self.run_network(params, state, x, len(x), rng, Overrides(variates=variates))

  def generate(
    self,
    params: Params,
    state: State,
    rng: Array,
    num: int,
    temperature: Array | float | None = None,
    latents: tuple[Array, ...] | None = None,
    given: Array | None = None,
    noise: tuple[Array, ...] | None = None,
  ) -> tuple[Array, list[Level]]:
    """Draws from the prior; returns output channels and levels.

    Args:
      temperature: one number or one per level; None is 1.
      latents, given, noise: see `Overrides`.
    """
    overrides = Overrides(latents, given, self.temperature_of_levels(temperature), noise=noise)
    return self.run_network(params, state, None, num, rng, overrides)

  def temperature_of_levels(self, temperature: Array | float | None) -> Array | None:
    """Returns the temperature of every level, [L]; `nn/temperatures.py` reads those of configs."""
    if temperature is None:
      return None
    return jnp.broadcast_to(jnp.asarray(temperature, jnp.float32), (len(self.level_names),))

  def nll(self, out: Array, target: Array) -> Array:
    """Returns the negative log-likelihood of scaled images inside the crop, [B], nats."""
    crop = slice(self.target_crop, self.image_size - self.target_crop)
    return -self.log_likelihood(out, target)[:, crop, crop].sum((1, 2))

  def metrics(self, out: Array, target: Array, levels: list[Level]) -> Metrics:
    """Returns the metrics of one pass on scaled images."""
    return distributions.elbo_metrics(self.nll(out, target), kl_of_runs(levels), self.num_dims)

  # The optional methods of `models.protocol`.

  def kl_per_variate(self, params: Params, state: State, batch: Batch, rng: Array) -> Array:
    return kl_of_runs(self.infer(params, state, batch['image'], rng)[1])

  def log_weights(self, params: Params, state: State, batch: Batch, rng: Array) -> Array:
    out, levels = self.infer(params, state, batch['image'], rng)
    return log_ratio_of_runs(levels) - self.nll(out, self.scale_target(batch['image']))

  def draw_prior(
    self,
    params: Params,
    state: State,
    rng: Array,
    num: int,
    temperature: Array | float | None = None,
    noise: tuple[Array, ...] | None = None,
  ) -> Latents:
    latent_rng = jax.random.split(rng)[0]
    _, levels = self.generate(params, state, latent_rng, num, temperature, noise=noise)
    return groups_of_runs(levels)

  def decode(
    self,
    params: Params,
    state: State,
    latents: Latents,
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


class PrunableHierarchy(ImageHierarchy):
  """Interface that only VDVAE and Efficient-VDVAE share.

  They have no state besides the parameters. Single latent channels can be drawn from the prior. The
  likelihood is Bernoulli or a discretised mixture of logistics.

  A system also has the fields `num_mixtures`, `num_bits` and `output_statistic`, and provides:
    network: the module that `run_network` applies.
    mixture(out): the mixture that output channels stand for.
    draw(out, rng): one draw from the likelihood, in the scale of the target.
    to_uint8(x): images from the scale of the target.
  """

  @property
  def out_channels(self) -> int:
    """Channels of the network's output."""
    return self.image_channels if self.likelihood == 'bernoulli' else 10 * self.num_mixtures

  def scale_target(self, image: Array) -> Array:
    """Returns uint8 images in [-1, 1] (`num_bits` levels), or [0, 1] for `bernoulli`."""
    if self.likelihood == 'bernoulli':
      return image.astype(jnp.float32) / 255
    return distributions.scale_pixels(image, self.num_bits)

  def init(self, rng: Array, batch: Batch) -> tuple[Params, State]:
    protocol.check_images(self, batch)
    params_rng, sample_rng = jax.random.split(rng)
    x = self.scale_input(batch['image'])
    network = self.quick_to_compile.network
    variables = network.init({'params': params_rng, 'sample': sample_rng}, x, len(x))
    return variables['params'], {}

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
    return self.network.apply({'params': params}, x, num, overrides, rngs={'sample': rng})

  def pruned(
    self, params: Params, state: State, batch: Batch, rng: Array, variates: Array | None
  ) -> Metrics:
    out, levels = self.infer(params, state, batch['image'], rng, variates)
    return self.metrics(out, self.scale_target(batch['image']), levels)

  def encode(
    self,
    params: Params,
    state: State,
    batch: Batch,
    rng: Array,
    variates: Array | None = None,
  ) -> Latents:
    return groups_of_runs(self.infer(params, state, batch['image'], rng, variates)[1])

  def histograms(self, params: Params, state: State, batch: Batch, rng: Array) -> dict[str, Array]:
    latent_rng, pixel_rng = jax.random.split(rng)
    out, _ = self.infer(params, state, batch['image'], latent_rng)
    values = {
      'targets': self.scale_target(batch['image']),
      'outputs': self.draw(out, pixel_rng),
    }
    if self.likelihood == 'bernoulli':
      return values
    mixture = self.mixture(out)
    scales = self.log_scales(mixture)
    return {**values, 'mixture_means': mixture.means, 'mixture_log_scales': scales}

  def log_scales(self, mixture: distributions.LogisticMixture) -> Array:
    """Returns the log-scales of the mixture's components."""
    return mixture.scales

  def pictures(self, out: Array, rng: Array) -> Array:
    """Returns a draw, or the mean by `output_statistic`, as uint8; black outside of the crop."""
    is_drawn = self.output_statistic == 'sample' or self.likelihood == 'bernoulli'
    x = self.draw(out, rng) if is_drawn else distributions.dmol_mean(self.mixture(out))
    return distributions.blank_padding(self.to_uint8(x), self.target_crop)
