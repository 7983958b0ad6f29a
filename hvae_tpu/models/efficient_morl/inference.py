"""One pass: the hierarchy gives a posterior, refinements improve it by the gradient of its loss."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu import layers
from hvae_tpu.models.efficient_morl import objective
from hvae_tpu.models.efficient_morl.decoders import Decoder
from hvae_tpu.models.efficient_morl.gaussians import Gaussian
from hvae_tpu.models.efficient_morl.network import BottomUp, Hierarchy, Prior, Refinement
from hvae_tpu.models.efficient_morl.objective import Canvas
from hvae_tpu.models.protocol import Segments


class Form(NamedTuple):
  """What a pass needs to know.

  Attributes:
    likelihood: (painted, x [B, H, W, 3] in [0, 1]) -> nll [B].
    layers: L.
    prior: 'reversed_plus', 'reversed' or 'bottom_up'.
    refinements: at most.
    hierarchy, decoder: networks.
    remat: of the decoder (`layers.REMAT`).
    unroll: refinements per iteration of the compiled loop.
  """

  likelihood: Callable[[Canvas, Array], Array]
  layers: int
  prior: str
  refinements: int
  hierarchy: Hierarchy
  decoder: Decoder
  remat: str
  unroll: int

  @property
  def num_draws(self) -> int:
    """Standard normal arrays [B, K, D] of a pass: first slots, layers, priors, refinements."""
    return 1 + self.layers + max(self.layers - 1, 0) + self.refinements


class Stage(NamedTuple):
  """One iteration: 0 is what the hierarchy gave, then come the refinements.

  Attributes:
    posterior: [B, K, D].
    z: [B, K, D], a draw of it.
    painted: what the slots of `z` look like.
    nll: [B], nats.
    kl: [B], nats: of the whole hierarchy for iteration 0, else of the posterior alone.
  """

  posterior: Gaussian
  z: Array
  painted: Canvas
  nll: Array
  kl: Array


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
    kept: what was asked for of the iterations before the last, stacked; zeros where none was.
    last: the last iteration.
  """

  bottom_up: BottomUp
  kl_per_layer: Array
  kept: Any
  last: Stage


def paint(form: Form, params: Any, z: Array) -> Canvas:
  """Slots [..., K, D] -> what they look like."""
  return objective.canvas(form.decoder.apply({'params': params['decoder']}, z))


def run(
  form: Form,
  params: Any,
  x: Array,
  noise: Array,
  weights: tuple[Array, Array],
  keep: Callable[[Stage, Step], Any],
  last: Array | None = None,
) -> Pass:
  """Infers the slots of pictures.

  Args:
    form: of the model.
    params: 'bottom_up', 'prior', 'decoder' and 'refinement'.
    x: [B, H, W, 3] in [0, 1].
    noise: [form.num_draws, B, K, D], standard normal.
    weights: of nll and KL in the loss whose gradient refines, [] each. A loss that is a mean over
      pictures has their number in both.
    keep: what is to be returned of the iterations before the last, and of the refinements behind
      them.
    last: number of refinements, traced; those not taken are not computed. None: all.
  """
  depth = form.layers
  bottom_up = form.hierarchy.apply({'params': params['bottom_up']}, 2 * x - 1, noise[: 1 + depth])
  drawn = noise[1 + depth : noise.shape[0] - form.refinements]
  divergences = functools.partial(_divergences, form, params, bottom_up, drawn)
  kls, anchor = divergences(bottom_up.top)
  drawn = jnp.concatenate([noise[depth : depth + 1], noise[noise.shape[0] - form.refinements :]])
  painted = layers.rematerialised(functools.partial(paint, form, params), form.remat)

  def evaluate(posterior: Gaussian, drawn: Array, first: Array | bool) -> Stage:
    z = posterior.sample(drawn)
    canvas = painted(z)
    first_kl = divergences(posterior)[0].sum(0)
    later_kl = posterior.kl(anchor).sum((1, 2))
    nll = form.likelihood(canvas, x)
    return Stage(posterior, z, canvas, nll, jnp.where(first, first_kl, later_kl))

  def refine(carry: tuple[Gaussian, Array], step: tuple[Array, Array]):
    (posterior, h), (index, drawn) = carry, step

    def loss(posterior: Gaussian) -> tuple[Array, Stage]:
      stage = evaluate(posterior, drawn, index == 0)
      return (weights[0] * stage.nll + weights[1] * stage.kl).sum(), stage

    gradient, stage = jax.grad(loss, has_aux=True)(posterior)
    # A constant: no second derivatives. The posterior itself is none.
    gradient = jax.lax.stop_gradient(gradient)
    change, h = Refinement().apply({'params': params['refinement']}, posterior, gradient, h)
    refined = jax.tree.map(jnp.add, posterior, change)
    return (refined, h), keep(stage, Step(gradient, change, h))

  def step(carry, xs):
    if last is None:
      return refine(carry, xs)
    nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(refine, carry, xs)[1])
    return jax.lax.cond(xs[0] < last, refine, lambda c, _: (c, nothing), carry, xs)

  carry = (bottom_up.top, jnp.zeros_like(bottom_up.top.mean))
  (posterior, _), kept = jax.lax.scan(
    step, carry, (jnp.arange(form.refinements), drawn[:-1]), unroll=max(form.unroll, 1)
  )
  index = form.refinements if last is None else last
  final = evaluate(posterior, drawn[index], index == 0)
  return Pass(bottom_up, kls, kept, final)


def segments(form: Form, params: Any, found: Pass, side: int) -> Segments:
  """The stages of a pass that kept its iterations whole; pictures have `side` pixels a side."""
  join = lambda *parts: jnp.concatenate(parts)
  iterations = jax.tree.map(lambda s, last: join(s, last[None]), found.kept, found.last)
  slots, mean, painted = iterations.z, iterations.posterior.mean, iterations.painted
  if below := found.bottom_up.slots[:-1]:
    lower = jnp.stack(below)
    slots, painted = join(lower, slots), jax.tree.map(join, paint(form, params, lower), painted)
    mean = join(jnp.stack([q.mean for q in found.bottom_up.posteriors[:-1]]), mean)
  pixels = (*slots.shape[1:3], side**2)
  read = found.bottom_up.attention or (jnp.full(pixels, 1 / pixels[1]),)
  read = [read[min(i, len(read) - 1)] for i in range(len(slots))]
  attention = jnp.stack(read).reshape(len(slots), *pixels[:2], side, side)
  parts = (*painted, attention, slots, mean, iterations.nll, iterations.kl)
  return Segments(*(jnp.swapaxes(part, 0, 1) for part in parts))


def _divergences(
  form: Form, params: Any, bottom_up: BottomUp, drawn: Array, top: Gaussian
) -> tuple[Array, Gaussian | None]:
  """KL of every layer [L, B], with `top` as the last posterior; and the prior of refined slots.

  The prior of a layer follows from a fresh draw of its neighbour: the layer above it, or below for
  'bottom_up'. `drawn` is [L - 1, B, K, D]. The outermost layer has N(0, 1), which None stands for.
  """
  if not form.layers:
    return jnp.zeros((0, len(top.mean))), None
  posteriors = [*bottom_up.posteriors[:-1], top]
  conditioning = posteriors[:-1] if form.prior == 'bottom_up' else posteriors[:0:-1]
  samples = [q.sample(noise) for q, noise in zip(conditioning, drawn, strict=True)]
  priors = [None, *(Prior().apply({'params': params['prior']}, z) for z in samples)]
  if form.prior != 'bottom_up':
    priors.reverse()
  kls = jnp.stack([q.kl(p).sum((1, 2)) for q, p in zip(posteriors, priors, strict=True)])
  return kls, priors[0] if form.prior == 'reversed_plus' else None
