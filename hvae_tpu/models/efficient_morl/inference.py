"""One pass: the hierarchy infers a posterior, refinements improve it by the loss's gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.efficient_morl import iteration, objective
from hvae_tpu.models.efficient_morl.decoders import Decoder
from hvae_tpu.models.efficient_morl.gaussians import Gaussian
from hvae_tpu.models.efficient_morl.iteration import (
  Constants,
  Differentiable,
  IterationConfig,
  Stage,
)
from hvae_tpu.models.efficient_morl.network import BottomUp, Hierarchy, Refinement
from hvae_tpu.models.protocol import Segments


class Step(NamedTuple):
  """One refinement.

  Attributes:
    gradient: gradient of the loss, by the posterior before the refinement.
    change: added to that posterior.
    h: [B, K, D], state of the recurrence after the refinement.
  """

  gradient: Gaussian
  change: Gaussian
  h: Array


class Pass(NamedTuple):
  """Results of a pass.

  Attributes:
    bottom_up: results of the hierarchy.
    kl_per_layer: [L, B], nats, bottom to top, before refinements.
    losses: [refinements], of the iterations before the last; zeros for refinements not taken.
    records: results of `record` for these iterations, stacked; zeros likewise.
    last_loss: [], of the last iteration.
    last: results of the last iteration.
  """

  bottom_up: BottomUp
  kl_per_layer: Array
  losses: Array
  records: Any
  last_loss: Array
  last: Stage


def num_draws(depth: int, refinements: int) -> int:
  """Returns the number of noise arrays [B, K, D]: first slots, layers, priors, refinements."""
  return 1 + depth + max(depth - 1, 0) + refinements


def run(
  config: IterationConfig,
  hierarchy: Hierarchy,
  params: Any,
  x: Array,
  noise: tuple[Array, Array, Array],
  weights: tuple[Array, Array],
  record: Callable[[Stage, Step], Any],
  last: Array | None = None,
) -> Pass:
  """Infers the slots of pictures.

  Args:
    config, hierarchy: config and hierarchy of the model.
    params: 'bottom_up', 'prior', 'decoder' and 'refinement'.
    x: pictures [B, H, W, 3] in [0, 1].
    noise: standard normal, [n, B, K, D] each: for the first slots and the layers, for the priors,
      for the refinements.
    weights: weights of nll and KL in the losses, which are sums over pictures, [] each.
    record: maps an iteration before the last, and its refinement, to values to return. Only losses
      have gradients.
    last: number of refinements, traced; others are not computed. None: all.
  """
  upward, chain, refining = noise
  bottom_up = hierarchy.apply({'params': params['bottom_up']}, 2 * x - 1, upward)
  posteriors = bottom_up.posteriors or (bottom_up.start,)
  kls, anchor = iteration.divergences(config, params, posteriors, chain)
  shared = {name: params[name] for name in ('prior', 'decoder')}
  inputs = Differentiable(shared, posteriors[:-1], anchor, None)
  loss_and_posterior_grad = iteration.loss_and_posterior_grad(config)

  def evaluate(posterior: Gaussian, draw: Array, first: Array) -> tuple[Array, Stage, Gaussian]:
    constants = Constants(x, (draw, chain), first, weights)
    return loss_and_posterior_grad(inputs._replace(posterior=posterior), constants)

  def refine(carry: tuple[Gaussian, Array], step: tuple[Array, Array]):
    (posterior, h), (index, draw) = carry, step
    loss, stage, gradient = evaluate(posterior, draw, index == 0)
    change, h = Refinement().apply({'params': params['refinement']}, posterior, gradient, h)
    refined = jax.tree.map(jnp.add, posterior, change)
    return (refined, h), (loss, record(stage, Step(gradient, change, h)))

  def step(carry, xs):
    if last is None:
      return refine(carry, xs)
    nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(refine, carry, xs)[1])
    return jax.lax.cond(xs[0] < last, refine, lambda c, _: (c, nothing), carry, xs)

  draws = jnp.concatenate([upward[-1:], refining])
  carry, index = (posteriors[-1], jnp.zeros_like(posteriors[-1].mean)), jnp.arange(len(refining))
  (posterior, _), (losses, records) = jax.lax.scan(step, carry, (index, draws[:-1]))
  count = jnp.asarray(len(refining) if last is None else last)
  last_loss, stage, _ = evaluate(posterior, draws[count], count == 0)
  return Pass(bottom_up, kls, losses, records, last_loss, stage)


def segments(decoder: Decoder, params: Any, result: Pass, side: int) -> Segments:
  """Returns the stages of a pass whose records are stages; pictures have `side` pixels a side."""
  join = lambda *parts: jnp.concatenate(parts)
  iterations = jax.tree.map(lambda s, last: join(s, last[None]), result.records, result.last)
  slots, mean, canvas = iterations.z, iterations.posterior.mean, iterations.canvas
  if below := result.bottom_up.slots[:-1]:
    lower = jnp.stack(below)
    slots = join(lower, slots)
    canvas = jax.tree.map(join, objective.paint(decoder, params, lower), canvas)
    mean = join(jnp.stack([q.mean for q in result.bottom_up.posteriors[:-1]]), mean)
  pixels = (*slots.shape[1:3], side**2)
  layers = result.bottom_up.attention or (jnp.full(pixels, 1 / pixels[1]),)
  layers = [layers[min(i, len(layers) - 1)] for i in range(len(slots))]
  attention = jnp.stack(layers).reshape(len(slots), *pixels[:2], side, side)
  parts = (*canvas, attention, slots, mean, iterations.nll, iterations.kl)
  return Segments(*(jnp.swapaxes(part, 0, 1) for part in parts))
