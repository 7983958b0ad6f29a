"""One pass: the hierarchy gives a posterior, refinements improve it by the gradient of its loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.efficient_morl import iteration, objective
from hvae_tpu.models.efficient_morl.gaussians import Gaussian
from hvae_tpu.models.efficient_morl.iteration import Form, Given, Inputs, Stage
from hvae_tpu.models.efficient_morl.network import BottomUp, Hierarchy, Refinement
from hvae_tpu.models.protocol import Segments


class Step(NamedTuple):
  """One refinement.

  Attributes:
    gradient: of the loss, by the posterior before it.
    change: what was added to that.
    h: [B, K, D], state of the recurrence after it.
  """

  gradient: Gaussian
  change: Gaussian
  h: Array


class Pass(NamedTuple):
  """What a pass gives.

  Attributes:
    bottom_up: of the hierarchy.
    kl_per_layer: [L, B], nats, bottom to top, before refinements.
    losses: [refinements], of the iterations before the last; zeros of those not made.
    kept: what was asked for of them, stacked; zeros likewise.
    last_loss: [], of the last iteration.
    last: the last iteration.
  """

  bottom_up: BottomUp
  kl_per_layer: Array
  losses: Array
  kept: Any
  last_loss: Array
  last: Stage


def num_draws(depth: int, refinements: int) -> int:
  """Standard normal arrays [B, K, D] of a pass: first slots, layers, priors, refinements."""
  return 1 + depth + max(depth - 1, 0) + refinements


def run(
  form: Form,
  hierarchy: Hierarchy,
  params: Any,
  x: Array,
  noise: tuple[Array, Array, Array],
  weights: tuple[Array, Array],
  keep: Callable[[Stage, Step], Any],
  last: Array | None = None,
) -> Pass:
  """Infers the slots of pictures.

  Args:
    form, hierarchy: of the model.
    params: 'bottom_up', 'prior', 'decoder' and 'refinement'.
    x: [B, H, W, 3] in [0, 1].
    noise: standard normal, [n, B, K, D] each: of the first slots and the layers, of the priors,
      of the refinements.
    weights: of nll and KL in the losses, which are sums over pictures, [] each.
    keep: what is to be returned of the iterations before the last, and of the refinements behind
      them. Losses alone have gradients.
    last: number of refinements, traced; those not taken are not computed. None: all.
  """
  upward, chain, refining = noise
  bottom_up = hierarchy.apply({'params': params['bottom_up']}, 2 * x - 1, upward)
  posteriors = bottom_up.posteriors or (bottom_up.start,)
  kls, anchor = iteration.divergences(form, params, posteriors, chain)
  fixed = Inputs({n: params[n] for n in ('prior', 'decoder')}, posteriors[:-1], anchor, None)
  descend = iteration.descent(form)

  def evaluate(posterior: Gaussian, drawn: Array, first: Array) -> tuple[Array, Stage, Gaussian]:
    given = Given(x, (drawn, chain), first, weights)
    return descend(fixed._replace(posterior=posterior), given)

  def refine(carry: tuple[Gaussian, Array], step: tuple[Array, Array]):
    (posterior, h), (index, drawn) = carry, step
    loss, stage, gradient = evaluate(posterior, drawn, index == 0)
    change, h = Refinement().apply({'params': params['refinement']}, posterior, gradient, h)
    refined = jax.tree.map(jnp.add, posterior, change)
    return (refined, h), (loss, keep(stage, Step(gradient, change, h)))

  def step(carry, xs):
    if last is None:
      return refine(carry, xs)
    nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(refine, carry, xs)[1])
    return jax.lax.cond(xs[0] < last, refine, lambda c, _: (c, nothing), carry, xs)

  drawn = jnp.concatenate([upward[-1:], refining])
  carry, index = (posteriors[-1], jnp.zeros_like(posteriors[-1].mean)), jnp.arange(len(refining))
  (posterior, _), (losses, kept) = jax.lax.scan(step, carry, (index, drawn[:-1]))
  count = jnp.asarray(len(refining) if last is None else last)
  last_loss, stage, _ = evaluate(posterior, drawn[count], count == 0)
  return Pass(bottom_up, kls, losses, kept, last_loss, stage)


def segments(form: Form, params: Any, found: Pass, side: int) -> Segments:
  """The stages of a pass that kept its iterations whole; pictures have `side` pixels a side."""
  join = lambda *parts: jnp.concatenate(parts)
  iterations = jax.tree.map(lambda s, last: join(s, last[None]), found.kept, found.last)
  slots, mean, painted = iterations.z, iterations.posterior.mean, iterations.painted
  if below := found.bottom_up.slots[:-1]:
    lower = jnp.stack(below)
    slots = join(lower, slots)
    painted = jax.tree.map(join, objective.paint(form.decoder, params, lower), painted)
    mean = join(jnp.stack([q.mean for q in found.bottom_up.posteriors[:-1]]), mean)
  pixels = (*slots.shape[1:3], side**2)
  read = found.bottom_up.attention or (jnp.full(pixels, 1 / pixels[1]),)
  read = [read[min(i, len(read) - 1)] for i in range(len(slots))]
  attention = jnp.stack(read).reshape(len(slots), *pixels[:2], side, side)
  parts = (*painted, attention, slots, mean, iterations.nll, iterations.kl)
  return Segments(*(jnp.swapaxes(part, 0, 1) for part in parts))
