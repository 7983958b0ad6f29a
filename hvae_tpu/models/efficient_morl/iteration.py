"""One iteration: a posterior over slots, a draw of it painted, and what that costs."""

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


class Form(NamedTuple):
  """What an iteration needs to know of the model.

  Attributes:
    likelihood: (painted, x [B, H, W, 3] in [0, 1]) -> nll [B].
    layers: L; without any, what the hierarchy begins with is refined, and its KL counts as zero.
    prior: 'reversed_plus', 'reversed' or 'bottom_up'.
    decoder: the network.
    remat: of the decoder (`layers.REMAT`).
  """

  likelihood: Callable[[Canvas, Array], Array]
  layers: int
  prior: str
  decoder: Decoder
  remat: str


class Inputs(NamedTuple):
  """What the loss of an iteration has gradients by.

  Attributes:
    params: of 'prior' and 'decoder'.
    below: posteriors of the layers under the top, each [B, K, D].
    anchor: prior of a refined posterior; None is N(0, 1).
    posterior: of the top layer, perhaps refined.
  """

  params: Any
  below: tuple[Gaussian, ...]
  anchor: Gaussian | None
  posterior: Gaussian


class Given(NamedTuple):
  """What is constant.

  Attributes:
    x: [B, H, W, 3] in [0, 1].
    noise: [B, K, D] of the draw, and [L - 1, B, K, D] of those that priors follow from.
    first: whether nothing was refined yet: then the KL is that of all layers. bool [].
    weights: of nll and KL in the loss, [] each.
  """

  x: Array
  noise: tuple[Array, Array]
  first: Array
  weights: tuple[Array, Array]


class Stage(NamedTuple):
  """What an iteration gives; none of it has gradients.

  Attributes:
    posterior: [B, K, D].
    z: [B, K, D], a draw of it.
    painted: what the slots of `z` look like.
    nll: [B], nats.
    kl: [B], nats: of all layers for the first iteration, else of the posterior alone.
  """

  posterior: Gaussian
  z: Array
  painted: Canvas
  nll: Array
  kl: Array


def loss(form: Form, inputs: Inputs, given: Given) -> tuple[Array, Stage]:
  """The sum over pictures of nll and KL, weighted."""
  draw, chain = given.noise
  posterior = inputs.posterior
  z = posterior.sample(draw)
  canvas = layers.rematerialised(functools.partial(objective.paint, form.decoder), form.remat)
  painted = canvas(inputs.params, z)
  nll = form.likelihood(painted, given.x)
  of_all = divergences(form, inputs.params, (*inputs.below, posterior), chain)[0].sum(0)
  of_one = posterior.kl(inputs.anchor).sum((1, 2))
  kl = jnp.where(given.first, of_all, of_one)
  total = (given.weights[0] * nll + given.weights[1] * kl).sum()
  return total, Stage(posterior, z, painted, nll, kl)


def divergences(
  form: Form, params: Any, posteriors: tuple[Gaussian, ...], noise: Array
) -> tuple[Array, Gaussian | None]:
  """KL of every layer, [L, B], bottom to top; and the prior of a refined posterior.

  The prior of a layer follows from a fresh draw of its neighbour: the layer above it, or below for
  'bottom_up'. The outermost layer has N(0, 1), which None stands for.

  Args:
    form: of the model.
    params: of 'prior'.
    posteriors: of all layers.
    noise: [L - 1, B, K, D].
  """
  if not form.layers:
    return jnp.zeros((0, len(posteriors[0].mean))), None
  bottom_up = form.prior == 'bottom_up'
  conditioning = posteriors[:-1] if bottom_up else posteriors[:0:-1]
  samples = [q.sample(eps) for q, eps in zip(conditioning, noise, strict=True)]
  priors = [None, *(Prior().apply({'params': params['prior']}, z) for z in samples)]
  priors = priors if bottom_up else priors[::-1]
  kls = jnp.stack([q.kl(p).sum((1, 2)) for q, p in zip(posteriors, priors, strict=True)])
  return kls, priors[0] if form.prior == 'reversed_plus' else None


def descent(form: Form) -> Callable[[Inputs, Given], tuple[Array, Stage, Gaussian]]:
  """(inputs, given) -> loss, stage, and the gradient of the loss by the posterior.

  The first value alone has derivatives, and its gradient by everything is taken at once, when it is
  computed: what refines a posterior is then also what trains the model. Otherwise the pass through
  the decoder would be made twice, and its inner values be kept for all iterations.
  """
  value_and_gradient = jax.value_and_grad(functools.partial(loss, form), has_aux=True)

  @jax.custom_vjp
  def descend(inputs: Inputs, given: Given) -> tuple[Array, Stage, Gaussian]:
    (value, stage), gradient = value_and_gradient(inputs, given)
    return value, stage, gradient.posterior

  def forward(inputs: Inputs, given: Given):
    (value, stage), gradient = value_and_gradient(inputs, given)
    return (value, stage, gradient.posterior), gradient

  def backward(gradient: Inputs, cotangents):
    return jax.tree.map(lambda g: cotangents[0] * g, gradient), None

  descend.defvjp(forward, backward)
  return descend
