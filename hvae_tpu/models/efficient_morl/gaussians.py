"""Diagonal Gaussians whose raw scale becomes a variance by a softplus."""

from typing import NamedTuple

from jax import Array
import jax.numpy as jnp


def deviation(raw: Array) -> Array:
  """Returns the standard deviation of a raw scale: sqrt(log(1 + exp(raw)) + 1e-5).

  Evaluated literally, so that far below zero it is exactly sqrt(1e-5), as in the reference.
  """
  return jnp.sqrt(jnp.log(1 + jnp.exp(jnp.minimum(raw, 80.0))) + 1e-5)


class Gaussian(NamedTuple):
  """Gaussian by `mean` and raw scale, which have the same shape."""

  mean: Array
  raw: Array

  @property
  def std(self) -> Array:
    return deviation(self.raw)

  def sample(self, noise: Array) -> Array:
    """Returns the draw for standard normal `noise` of the same shape."""
    return self.mean + self.std * noise

  def kl(self, prior: 'Gaussian | None' = None) -> Array:
    """Returns KL(self || prior) per element, nats; None stands for N(0, 1)."""
    mean, std = (0.0, 1.0) if prior is None else (prior.mean, prior.std)
    ratio = jnp.square(self.std / std)
    return 0.5 * (ratio + jnp.square((self.mean - mean) / std) - 1 - jnp.log(ratio))
