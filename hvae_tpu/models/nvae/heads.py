"""Likelihoods of pixels, by the name that configs use. Targets are in [0, 1].

The first three belong to NVAE. The last three belong to mgp123/nvae, where every colour selects its
component independently.
"""

from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.nn import distributions
from hvae_tpu.nn.distributions import Normal

BOUND = 5.0
MIN_LOG_SCALE = -7.0
U_EDGE = 1e-5  # uniform draws keep this distance from 0 and 1


class Head(NamedTuple):
  """A likelihood of pixels, with its settings.

  Attributes:
    name: an entry of `HEADS`.
    image_channels: channels of the target.
    num_mixtures: components of a mixture.
    num_bits: bits of the target.
    upper_edge: discretised logistics: targets above it, in [-1, 1], own the upper tail.
    temperature: temperature of sampled pixels.
  """

  name: str
  image_channels: int
  num_mixtures: int
  num_bits: int
  upper_edge: float
  temperature: float

  @property
  def out_channels(self) -> int:
    k = self.num_mixtures
    return {'bernoulli': self.image_channels, 'dmol': 10 * k, 'normal': 6, 'gaussian': 6}.get(
      self.name, 9 * k
    )

  def log_prob(self, out: Array, x: Array) -> Array:
    """Returns the log-probability (density) of x [B, H, W, C] given output channels, [B, H, W]."""
    if self.name == 'dmol':
      return distributions.dmol_log_prob(
        distributions.mixture_by_colour(out, self.num_mixtures),
        2 * x - 1,
        half_bin=1 / (2**self.num_bits - 1),
        upper_edge=self.upper_edge,
      )
    return self.log_prob_of_colours(out, x).sum(-1)

  def log_prob_of_colours(self, out: Array, x: Array) -> Array:
    """Returns it per colour, [B, H, W, C], for heads that treat colours independently."""
    if self.name == 'bernoulli':
      return distributions.bernoulli_log_prob(out, x)
    if self.name in PLAIN:
      return plain(out).log_prob(2 * x - 1 if self.name == 'normal' else x)
    mixture = self._mixture(out)
    x = x[..., None]
    log_probs = mixture.log_probs(x) if self.name == 'gaussian_mixture' else mixture.masses(x)
    return jax.nn.logsumexp(log_probs + jax.nn.log_softmax(mixture.logits), axis=-1)

  def mean(self, out: Array) -> Array:
    """Returns expected pixels in the scale of the target; only 'dmol' limits them to [0, 1]."""
    if self.name == 'bernoulli':
      return jax.nn.sigmoid(out)
    if self.name == 'dmol':
      mixture = distributions.mixture_by_colour(out, self.num_mixtures)
      return _unit(distributions.dmol_mean(mixture))
    if self.name in PLAIN:
      return self._unit(plain(out).mean)
    mixture = self._mixture(out)
    return self._unit((jax.nn.softmax(mixture.logits) * mixture.means).sum(-1))

  def mode(self, out: Array) -> Array:
    """Returns the mean of the most probable component (only the heads of mgp123/nvae)."""
    if self.name in PLAIN:
      return self._unit(plain(out).mean)
    mixture = self._mixture(out)
    return self._unit(mixture.component(jnp.argmax(mixture.logits, -1))[0])

  def draw(self, out: Array, rng: Array) -> Array:
    """Returns one draw in [0, 1], [B, H, W, C]; the Bernoulli likelihood gives its mean."""
    if self.name == 'bernoulli':
      return jax.nn.sigmoid(out)
    if self.name == 'dmol':
      mixture = distributions.mixture_by_colour(out, self.num_mixtures)
      # Differs from VDVAE: a low temperature widens the logistics, as the reference has it.
      t = self.temperature
      return _unit(distributions.dmol_sample(rng, mixture, temperature=t, scale_temperature=1 / t))
    if self.name in PLAIN:
      dist = plain(out)
      x = dist.sample(distributions.normal(rng, dist.mean.shape))
    else:
      x = self._draw_mixture(out, rng)
    return jnp.clip(self._unit(x), 0.0, 1.0)

  def _draw_mixture(self, out: Array, rng: Array) -> Array:
    mixture, (component_rng, rng) = self._mixture(out), jax.random.split(rng)
    gumbel = distributions.gumbel(component_rng, mixture.logits.shape)
    mean, scale = mixture.component(jnp.argmax(mixture.logits + gumbel, -1))
    if self.name == 'gaussian_mixture':
      return mean + jnp.exp(scale) * distributions.normal(rng, mean.shape)
    u = distributions.uniform(rng, mean.shape, U_EDGE, 1 - U_EDGE)
    return mean + jnp.exp(scale) * (jnp.log(u) - jnp.log(1 - u))

  def _mixture(self, out: Array) -> 'Mixture':
    make = gaussian_mixture if self.name == 'gaussian_mixture' else logistic_mixture
    return make(out, self.num_mixtures)

  def _unit(self, x: Array) -> Array:
    """Maps pixels from the scale of the head to [0, 1]."""
    return _unit(x) if self.name in ('normal', 'logistic_mixture') else x


HEADS = ('dmol', 'normal', 'bernoulli', 'gaussian', 'gaussian_mixture', 'logistic_mixture')
PLAIN = ('normal', 'gaussian')


def scale(image: Array, num_bits: int) -> Array:
  """Maps uint8 to [0, 1], on the 2**num_bits levels that keep the upper bits."""
  # Compilers divide by multiplying with the rounded reciprocal, which is off by one ulp: enough
  # to decide whether a difference of two sigmoids is zero. The first product is exact here.
  inverse = 1 / (2**num_bits - 1)
  upper = np.ldexp(np.round(np.ldexp(inverse, 16)), -16)
  x = (image >> (8 - num_bits)).astype(jnp.float32)
  return x * np.float32(upper) + x * np.float32(inverse - upper)


def _unit(x: Array) -> Array:
  return x / 2 + 0.5


def soft_clamp(v: Array) -> Array:
  return BOUND * jnp.tanh(v / BOUND)


def plain(out: Array) -> Normal:
  """Returns the Gaussian [..., 3] of channels [..., 6]: means, log-deviations; clamped softly."""
  mean, raw = jnp.split(soft_clamp(out), 2, axis=-1)
  return Normal(mean, jnp.log(jnp.exp(raw) + 0.01))


class Mixture(NamedTuple):
  """Components of every colour: `logits`, `means` and `log_scales`, [..., 3, K]."""

  logits: Array
  means: Array
  log_scales: Array

  def component(self, index: Array) -> tuple[Array, Array]:
    """Returns mean and log-scale of component `index` [..., 3]."""
    pick = lambda a: jnp.take_along_axis(a, index[..., None], -1)[..., 0]
    return pick(self.means), pick(self.log_scales)

  def log_probs(self, x: Array) -> Array:
    """Returns the log-density of every component as a Gaussian, at x [..., 3, 1] in [0, 1]."""
    return Normal(self.means, self.log_scales).log_prob(x)

  def masses(self, x: Array) -> Array:
    """Returns the log-mass of every component as a logistic, in the 8-bit bin of x [..., 3, 1].

    It is floored where the difference of two sigmoids is lost in float32.
    """
    centred, inverse = 2 * x - 1 - self.means, jnp.exp(-self.log_scales)
    plus, minus = inverse * (centred + 1 / 255), inverse * (centred - 1 / 255)
    mass = jax.nn.sigmoid(plus) - jax.nn.sigmoid(minus)
    inner = jnp.log(jnp.maximum(mass, 1e-10))
    upper = jnp.where(x > 1 - 5e-3, -jax.nn.softplus(minus), inner)
    return jnp.where(x < 5e-4, plus - jax.nn.softplus(plus), upper)


def _parts(out: Array, num_mixtures: int) -> Any:
  """Splits [..., 9 K] channels, ordered colour, kind, k, into three kinds [..., 3, K].

  The kinds are logit, mean and log-scale.
  """
  parts = out.reshape(*out.shape[:-1], 3, 3, num_mixtures)
  return tuple(parts[..., kind, :] for kind in range(3))


def gaussian_mixture(out: Array, num_mixtures: int) -> Mixture:
  """Returns a mixture whose parameters are all clamped softly at +-5."""
  logits, means, raw = _parts(soft_clamp(out), num_mixtures)
  return Mixture(logits, means, jnp.log(jnp.exp(raw) + 0.01))


def logistic_mixture(out: Array, num_mixtures: int) -> Mixture:
  """Returns a mixture: logits clamped softly, means cut at +-5, log-scales at -7."""
  logits, means, raw = _parts(out, num_mixtures)
  means = jnp.clip(means, -BOUND, BOUND)
  return Mixture(soft_clamp(logits), means, jnp.maximum(raw, MIN_LOG_SCALE))
