"""Likelihoods, divergences and sampling: pure functions of arrays, in nats.

All models draw their random numbers by `normal`, `uniform`, `gumbel` and `logistic` below. So a
test can replace the noise of a whole model in one place, before tracing.

Pixels are mapped to [-1, 1]; the discretised likelihoods give each of the equally spaced levels the
mass that a continuous density has in the bin around it.
"""

from collections.abc import Callable, Mapping
import math
from typing import NamedTuple

import jax
from jax import Array
import jax.numpy as jnp

# The outermost levels own the tails of the density. Targets are compared with a margin, because
# float32 does not reach -1 and 1 exactly on every backend.
EDGE = 0.999
STATISTICS = ('sample', 'mean')  # what pictures show of a likelihood


# Draws are flat and then shaped. The values are the same, but the CPU compiler takes a tenth of a
# second; it takes seconds for the counters of every shape with many axes.
def normal(rng: Array, shape: tuple[int, ...]) -> Array:
  """Draws from the standard normal distribution, float32."""
  return jax.random.normal(rng, (math.prod(shape),), jnp.float32).reshape(shape)


def uniform(rng: Array, shape: tuple[int, ...], minval: float = 0.0, maxval: float = 1.0) -> Array:
  """Draws uniformly from [minval, maxval), float32."""
  flat = jax.random.uniform(rng, (math.prod(shape),), jnp.float32, minval, maxval)
  return flat.reshape(shape)


def gumbel(rng: Array, shape: tuple[int, ...]) -> Array:
  """Draws from the standard Gumbel distribution, float32."""
  return jax.random.gumbel(rng, (math.prod(shape),), jnp.float32).reshape(shape)


def logistic(rng: Array, shape: tuple[int, ...]) -> Array:
  """Draws from the standard logistic distribution, float32."""
  return jax.random.logistic(rng, (math.prod(shape),), jnp.float32).reshape(shape)


class Group(NamedTuple):
  """One group of latent variables of a hierarchy, for a batch.

  Attributes:
    mean: [B, h, w, zdim], mean of the distribution of z.
    scale: [B, h, w, zdim], its standard deviation.
    z: [B, h, w, zdim], the values that the network used.
  """

  mean: Array
  scale: Array
  z: Array


# One entry per group, in the order of execution (coarsest first); never stacked.
Latents = tuple[Group, ...]


def softplus(x: Array, beta: float) -> Array:
  """Computes log(1 + exp(beta x)) / beta ("smoothing").

  A small beta makes the slope grow slowly.
  """
  return jax.nn.softplus(beta * x) / beta


def log_softplus(x: Array, beta: float) -> Array:
  """Computes the logarithm of `softplus`, for log-scales.

  Differs from the reference: it is constant below a scale of 1e-8, where it has no gradient. At
  x = -200 the softplus is 0 in float32, and its logarithm makes every gradient NaN; a scale below
  1e-10 already overflows in the gradient of a KL. Nothing that was trained comes near.
  """
  return jnp.log(jnp.maximum(softplus(x, beta), 1e-8))


class Normal(NamedTuple):
  """A diagonal Gaussian; `mean` and `logstd` have the same shape."""

  mean: Array
  logstd: Array

  @property
  def std(self) -> Array:
    return jnp.exp(self.logstd)

  def tempered(self, temperature: Array | float | None) -> 'Normal':
    """Multiplies the standard deviation; 0 leaves the mean, None is 1."""
    if temperature is None:
      return self
    return Normal(self.mean, self.logstd + jnp.log(jnp.asarray(temperature, jnp.float32)))

  def sample(self, noise: Array) -> Array:
    """Returns the draw of standard normal `noise` of the same shape."""
    return self.mean + self.std * noise

  def log_prob(self, x: Array) -> Array:
    """Returns the log-density of x per element, nats."""
    distance = (x - self.mean) / self.std
    return -0.5 * jnp.square(distance) - 0.5 * math.log(2 * math.pi) - self.logstd

  def kl(self, prior: 'Normal') -> Array:
    """Returns KL(self || prior) per element, nats (VDVAE, appendix; analytic)."""
    spread = jnp.square(self.std) + jnp.square(self.mean - prior.mean)
    return prior.logstd - self.logstd - 0.5 + 0.5 * spread / jnp.square(prior.std)


def normal_log_prob(x: Array, mean: Array, std: float) -> Array:
  """Returns the log-density of x under a Gaussian of fixed deviation, per element, nats."""
  return -0.5 * jnp.square((x - mean) / std) - math.log(std * math.sqrt(2 * math.pi))


def scale_pixels(image: Array, num_bits: int) -> Array:
  """Maps uint8 to [-1, 1], on the 2**num_bits levels that keep the upper bits."""
  bin_width = 2 ** (8 - num_bits)
  return ((image // bin_width * bin_width).astype(jnp.float32) - 127.5) / 127.5


def bernoulli_log_prob(logits: Array, x: Array) -> Array:
  """Returns the log-probability of x in {0, 1} per element; x in between is an expectation."""
  return logits * x - jax.nn.softplus(logits)


@jax.custom_jvp
def log1mexp(v: Array) -> Array:
  """Computes log(1 - exp(-v)) for v > 0, accurate at both ends; its derivative is 1 / expm1(v).

  The derivative is written by hand: differentiating the `where` below gives NaN in the branch that
  is not taken.
  """
  return jnp.where(v > math.log(2.0), jnp.log1p(-jnp.exp(-v)), jnp.log(-jnp.expm1(-v)))


@log1mexp.defjvp
def _log1mexp_jvp(primals, tangents):
  (v,), (dv,) = primals, tangents
  return log1mexp(v), dv / jnp.expm1(v)


class LogisticMixture(NamedTuple):
  """K logistics per pixel, shared selector, colours chained red -> green -> blue.

  Components and colours are the leading axes. A CPU then runs elementwise loops along whole images,
  several times faster than along ten components.

  Attributes:
    logits: [K, ...], unnormalised log-weights of the components.
    means: [3, K, ...], before the chain.
    scales: [3, K, ...], raw; the likelihood decides their meaning.
    coeffs: [3, K, ...], in (-1, 1): green from red, blue from red, blue from green.
  """

  logits: Array
  means: Array
  scales: Array
  coeffs: Array

  def chained_means(self, x: Array) -> Array:
    """Returns means given the true colours x [3, 1, ...]: [3, K, ...] (PixelCNN++, equation 3)."""
    green_red, blue_red, blue_green = self.coeffs
    chain = [jnp.zeros_like(green_red), green_red * x[0], blue_red * x[0] + blue_green * x[1]]
    return self.means + jnp.stack(chain)

  def component(self, index: Array) -> 'LogisticMixture':
    """Selects component `index` [...]: fields [3, ...]; `logits` are unchanged."""
    pick = lambda a: jnp.take_along_axis(a, index[None, None], axis=1)[:, 0]
    return LogisticMixture(self.logits, pick(self.means), pick(self.scales), pick(self.coeffs))


def mixture_by_colour(channels: Array, num_mixtures: int) -> LogisticMixture:
  """Splits [..., 10 K] channels: K logits, then colour, then kind (mean, scale, coeff), then k."""
  channels = jnp.moveaxis(channels, -1, 0)
  logits, rest = jnp.split(channels, [num_mixtures])
  rest = rest.reshape(3, 3, num_mixtures, *channels.shape[1:])
  return LogisticMixture(logits, rest[:, 0], rest[:, 1], jnp.tanh(rest[:, 2]))


def mixture_by_component(channels: Array, num_mixtures: int) -> LogisticMixture:
  """Splits [..., 10 K] channels: K logits, then colour, then k, then kind (mean, scale, coeff)."""
  channels = jnp.moveaxis(channels, -1, 0)
  logits, rest = jnp.split(channels, [num_mixtures])
  rest = rest.reshape(3, num_mixtures, 3, *channels.shape[1:])
  return LogisticMixture(logits, rest[:, :, 0], rest[:, :, 1], jnp.tanh(rest[:, :, 2]))


def _colours_first(x: Array) -> Array:
  """Moves colours to the front: [..., 3] -> [3, 1, ...], to broadcast against [3, K, ...]."""
  return jnp.moveaxis(x, -1, 0)[:, None]


def _mix(log_probs: Array, logits: Array) -> Array:
  """Sums over colours and mixes components: [3, K, ...] -> per pixel [...]."""
  return jax.nn.logsumexp(log_probs.sum(0) + jax.nn.log_softmax(logits, axis=0), axis=0)


def dmol_log_prob(
  mixture: LogisticMixture,
  x: Array,
  *,
  half_bin: float,
  upper_edge: float = EDGE,
  min_log_scale: float = -7.0,
  smoothing: float = 1.0,
) -> Array:
  """Evaluates a discretised mixture of logistics, as VDVAE and Efficient-VDVAE do.

  The mass of a bin may be too small for a difference of sigmoids in float32. Then the density at
  its centre, times its width, replaces it. Published numbers contain this approximation.

  Args:
    mixture: mixture of [B, H, W] pixels; `scales` are log-scales.
    x: [B, H, W, 3], the true pixels in [-1, 1].
    half_bin: half the width of a level's bin: 1/255 for 8 bits.
    upper_edge: targets above it own the upper tail.
    min_log_scale: floor of the log-scales.
    smoothing: factor of the log-scales; the replacing density leaves it out, as published numbers
      of Efficient-VDVAE do.

  Returns:
    Log-probability per pixel [B, H, W], nats.
  """
  x = _colours_first(x)
  log_scales = jnp.maximum(mixture.scales, min_log_scale)
  inv_scale = jnp.exp(-smoothing * log_scales)
  centred = x - mixture.chained_means(x)
  plus = inv_scale * (centred + half_bin)
  minus = inv_scale * (centred - half_bin)
  mass = jax.nn.sigmoid(plus) - jax.nn.sigmoid(minus)
  middle = inv_scale * centred
  density = middle - log_scales - 2 * jax.nn.softplus(middle) + math.log(2 * half_bin)
  inner = jnp.where(mass > 1e-5, jnp.log(jnp.maximum(mass, 1e-12)), density)
  lowest, highest = x < -EDGE, x > upper_edge
  tail = -jax.nn.softplus(jnp.where(lowest, -plus, minus))
  return _mix(jnp.where(lowest | highest, tail, inner), mixture.logits)


def dmol_exact_log_prob(
  mixture: LogisticMixture, x: Array, *, half_bin: float, upper_edge: float = EDGE
) -> Array:
  """Evaluates a discretised mixture of logistics without approximation (the form of vdvae-jax).

  It is the quantity of `dmol_log_prob`, with an analytic log of the difference of two sigmoids.
  `scales` are inverse scales before a softplus.

  Returns:
    Log-probability per pixel [B, H, W], nats.
  """
  x = _colours_first(x)
  inv_scale = jnp.maximum(jax.nn.softplus(mixture.scales), 1e-7)
  centred = x - mixture.chained_means(x)
  below_top = -jax.nn.softplus((centred - half_bin) * inv_scale)
  above_bottom = -jax.nn.softplus(-(centred + half_bin) * inv_scale)
  inner = log1mexp(2 * half_bin * inv_scale) + below_top + above_bottom
  log_probs = jnp.where(x < -EDGE, above_bottom, jnp.where(x > upper_edge, below_top, inner))
  return _mix(log_probs, mixture.logits)


def dmol_sample(
  rng: Array,
  mixture: LogisticMixture,
  *,
  min_log_scale: float = -7.0,
  smoothing: float = 1.0,
  temperature: float = 1.0,
  scale_temperature: float | None = None,
  highest: float = 1.0,
) -> Array:
  """Draws once, clipped to [-1, highest] after each colour, [B, H, W, 3]; `scales` are log-scales.

  `temperature` divides the component's log-weights; `scale_temperature` (None: the same) multiplies
  the scales; for the others see `dmol_log_prob`.
  """
  scale_temperature = temperature if scale_temperature is None else scale_temperature
  component_rng, logistic_rng = jax.random.split(rng)
  *pixels, num_mixtures = (*mixture.logits.shape[1:], len(mixture.logits))
  u = uniform(component_rng, (*pixels, num_mixtures), 1e-5, 1 - 1e-5)
  noise = -jnp.log(-jnp.log(jnp.moveaxis(u, -1, 0)))
  chosen = mixture.component(jnp.argmax(mixture.logits / temperature + noise, axis=0))
  u = jnp.moveaxis(uniform(logistic_rng, (*pixels, 3), 1e-5, 1 - 1e-5), -1, 0)
  scale = jnp.exp(smoothing * jnp.maximum(chosen.scales, min_log_scale)) * scale_temperature
  x = chosen.means + scale * (jnp.log(u) - jnp.log(1 - u))
  return _chain_colours(x, chosen.coeffs, clip=lambda v: jnp.clip(v, -1.0, highest))


def dmol_mean(mixture: LogisticMixture) -> Array:
  """Chains the mean parameters of all components, clipped to [-1, 1], [B, H, W, 3]."""
  weights = jax.nn.softmax(mixture.logits, axis=0)
  means, coeffs = (weights * mixture.means).sum(1), (weights * mixture.coeffs).sum(1)
  return _chain_colours(means, coeffs, clip=lambda v: jnp.clip(v, -1.0, 1.0))


def dmol_exact_sample(rng: Array, mixture: LogisticMixture, temperature: float = 1.0) -> Array:
  """Draws once, not clipped, [B, H, W, 3]; `scales` are inverse scales before a softplus.

  `temperature` as in `dmol_sample`.
  """
  component_rng, logistic_rng = jax.random.split(rng)
  noise = gumbel(component_rng, mixture.logits.shape)
  chosen = mixture.component(jnp.argmax(mixture.logits / temperature + noise, axis=0))
  inv_scale = jnp.maximum(jax.nn.softplus(chosen.scales), 1e-7)
  x = chosen.means + logistic(logistic_rng, chosen.means.shape) * temperature / inv_scale
  return _chain_colours(x, chosen.coeffs, clip=lambda v: v)


def _chain_colours(x: Array, coeffs: Array, clip: Callable[[Array], Array]) -> Array:
  """Chains red -> green -> blue: x, coeffs [3, ...] -> [..., 3]."""
  red = clip(x[0])
  green = clip(x[1] + coeffs[0] * red)
  blue = clip(x[2] + coeffs[1] * red + coeffs[2] * green)
  return jnp.stack([red, green, blue], axis=-1)


def to_uint8(x: Array, rounding: str = 'round') -> Array:
  """Maps [-1, 1] to 0..255; the VDVAE release uses `truncate` (half a level too dark)."""
  x = jnp.clip((x + 1) * 127.5, 0, 255)
  return (jnp.round(x) if rounding == 'round' else x).astype(jnp.uint8)


def blank_padding(pictures: Array, crop: int) -> Array:
  """Blanks the outer `crop` rows and columns of [B, H, W, C]: padding is never modelled."""
  inside = pictures[:, crop : pictures.shape[1] - crop, crop : pictures.shape[2] - crop]
  return jnp.pad(inside, ((0, 0), (crop, crop), (crop, crop), (0, 0)))


def elbo_metrics(nll: Array, kl_per_variate: Array, num_dims: int) -> Mapping[str, Array]:
  """Returns the metrics that every likelihood model reports, per example.

  Args:
    nll: [B], negative log-likelihood (distortion), nats.
    kl_per_variate: [B, L, V], KL of each latent channel of each level, summed over space, nats.
    num_dims: H * W * C of the target.

  Returns:
    `nll`, `kl`, `neg_elbo` [B], nats per example; `bpd`, `nll_bpd`, `kl_bpd` [B], bits/dim;
    `kl_per_level` [B, L], nats; `active_units` [], latent channels whose mean KL exceeds 0.1 nats
    (the rule of NVAE).
  """
  kl_per_level = kl_per_variate.sum(-1)
  kl = kl_per_level.sum(-1)
  to_bpd = 1 / (num_dims * math.log(2.0))
  return {
    'nll': nll,
    'kl': kl,
    'neg_elbo': nll + kl,
    'bpd': (nll + kl) * to_bpd,
    'nll_bpd': nll * to_bpd,
    'kl_bpd': kl * to_bpd,
    'kl_per_level': kl_per_level,
    'active_units': (kl_per_variate.mean(0) > 0.1).sum().astype(jnp.float32),
  }
