"""One iteration: draws slots from a posterior, paints them, and computes the loss."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.efficient_morl import objective
from hvae_tpu.models.efficient_morl.decoders import Decoder
from hvae_tpu.models.efficient_morl.gaussians import Gaussian
from hvae_tpu.models.efficient_morl.network import Prior
from hvae_tpu.models.efficient_morl.objective import Canvas
from hvae_tpu.nn import layers


class IterationConfig(NamedTuple):
  """Settings of an iteration.

  Attributes:
    likelihood: (canvas, x [B, H, W, 3] in [0, 1]) -> nll [B].
    layers: L; with 0, the first Gaussian of the hierarchy is refined, and its KL counts as zero.
    prior: 'reversed_plus', 'reversed' or 'bottom_up'.
    decoder: the network.
    remat: recomputation of the decoder (`layers.REMAT`).
  """

  likelihood: Callable[[Canvas, Array], Array]
  layers: int
  prior: str
  decoder: Decoder
  remat: str


class Differentiable(NamedTuple):
  """Inputs of an iteration's loss that it is differentiated by.

  Attributes:
    params: parameters of 'prior' and 'decoder'.
    below: posteriors of the layers under the top, each [B, K, D].
    anchor: prior of a refined posterior; None is N(0, 1).
    posterior: posterior of the top layer, perhaps refined; [B, K, D].
  """

  params: Any
  below: tuple[Gaussian, ...]
  anchor: Gaussian | None
  posterior: Gaussian


class Constants(NamedTuple):
  """Inputs of an iteration's loss without gradients.

  Attributes:
    x: pictures [B, H, W, 3] in [0, 1].
    noise: [B, K, D] for the draw of slots, and [L - 1, B, K, D] for draws that priors follow from.
    first: bool [], whether nothing was refined yet; then the KL is the KL of all layers.
    weights: weights of nll and KL in the loss, [] each.
  """

  x: Array
  noise: tuple[Array, Array]
  first: Array
  weights: tuple[Array, Array]


class Stage(NamedTuple):
  """Results of an iteration; none of them has gradients.

  Attributes:
    posterior: [B, K, D].
    z: slots drawn from it, [B, K, D].
    canvas: pictures of the slots `z`.
    nll: [B], nats.
    kl: [B], nats: of all layers for the first iteration, else of the posterior alone.
  """

  posterior: Gaussian
  z: Array
  canvas: Canvas
  nll: Array
  kl: Array


def loss(
  config: IterationConfig, inputs: Differentiable, constants: Constants
) -> tuple[Array, Stage]:
  """Computes the weighted nll and KL, summed over pictures."""
  draw, chain = constants.noise
  posterior = inputs.posterior
  z = posterior.sample(draw)
  paint = layers.rematerialised(functools.partial(objective.paint, config.decoder), config.remat)
  canvas = paint(inputs.params, z)
  nll = config.likelihood(canvas, constants.x)
  kl_of_layers = divergences(config, inputs.params, (*inputs.below, posterior), chain)[0].sum(0)
  kl_of_posterior = posterior.kl(inputs.anchor).sum((1, 2))
  kl = jnp.where(constants.first, kl_of_layers, kl_of_posterior)
  total = (constants.weights[0] * nll + constants.weights[1] * kl).sum()
  return total, Stage(posterior, z, canvas, nll, kl)


def divergences(
  config: IterationConfig, params: Any, posteriors: tuple[Gaussian, ...], noise: Array
) -> tuple[Array, Gaussian | None]:
  """Returns the KL of every layer, [L, B], bottom to top; and the prior of a refined posterior.

  The prior of a layer follows from a fresh draw of its neighbour: the layer above it, or below it
  for 'bottom_up'. The outermost layer has the prior N(0, 1), for which None stands.

  Args:
    config: settings.
    params: parameters of 'prior'.
    posteriors: posteriors of all layers.
    noise: [L - 1, B, K, D].
  """
  if not config.layers:
    return jnp.zeros((0, len(posteriors[0].mean))), None
  bottom_up = config.prior == 'bottom_up'
  conditioning = posteriors[:-1] if bottom_up else posteriors[:0:-1]
  samples = [q.sample(eps) for q, eps in zip(conditioning, noise, strict=True)]
  priors = [None, *(Prior().apply({'params': params['prior']}, z) for z in samples)]
  priors = priors if bottom_up else priors[::-1]
  kls = jnp.stack([q.kl(p).sum((1, 2)) for q, p in zip(posteriors, priors, strict=True)])
  return kls, priors[0] if config.prior == 'reversed_plus' else None


def loss_and_posterior_grad(
  config: IterationConfig,
) -> Callable[[Differentiable, Constants], tuple[Array, Stage, Gaussian]]:
  """Returns (inputs, constants) -> loss, stage, and the gradient of the loss by the posterior.

  Only the loss has derivatives. Its gradients by all inputs are computed together with its value:
  one backward pass refines the posterior and trains the model. Otherwise the decoder would be
  differentiated twice, and the inner values of all iterations be stored.
  """
  value_and_gradient = jax.value_and_grad(functools.partial(loss, config), has_aux=True)

  @jax.custom_vjp
  def evaluate(inputs: Differentiable, constants: Constants) -> tuple[Array, Stage, Gaussian]:
    (value, stage), gradient = value_and_gradient(inputs, constants)
    return value, stage, gradient.posterior

  def forward(inputs: Differentiable, constants: Constants):
    (value, stage), gradient = value_and_gradient(inputs, constants)
    return (value, stage, gradient.posterior), gradient

  def backward(gradient: Differentiable, cotangents):
    return jax.tree.map(lambda g: cotangents[0] * g, gradient), None

  evaluate.defvjp(forward, backward)
  return evaluate
