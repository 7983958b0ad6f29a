"""Pictures through their latent variables, whole or pruned: what they cost and how they look.

A batch has one key. The first part of it draws the latent variables, in encoding as in decoding;
so latents that were stored are decoded to the same pictures, bit for bit, and the variates that
were not stored are drawn again with the same noise.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.sharding import Mesh
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.evals import elbo, ssim
from hvae_tpu.nn import distributions

NEEDS = ('loss', 'encode', 'decode', 'level_names')


class Coders(NamedTuple):
  """Jitted halves of a reconstruction; everything that encodes or decodes uses these programs.

  Attributes:
    encode: (params, model_state, batch, rng, variates [L, V] or None) -> Latents.
    decode: (params, model_state, z of every group, rng, given [L] or [L, V], temperature [L]) ->
      uint8 [B, H, W, C].
  """

  encode: Callable[..., Any]
  decode: Callable[..., Array]


class Result(NamedTuple):
  """Of one pruning.

  Attributes:
    numbers: mean of every metric over the examples, and `ssim`, `num_examples`.
    pictures: of the first examples, uint8 [num, H, W, C].
  """

  numbers: dict[str, Any]
  pictures: np.ndarray


def coders(model: Any, mesh: Mesh) -> Coders:
  def encode(params, model_state, batch, rng, variates):
    pruning = () if variates is None else (variates,)
    return model.encode(params, model_state, batch, jax.random.split(rng)[0], *pruning)

  def decode(params, model_state, z, rng, given, temperature):
    latents = tuple(distributions.Group(None, None, values) for values in z)
    return model.decode(params, model_state, latents, rng, temperature, given)

  place = sharding.batch_sharding(mesh)
  return Coders(jax.jit(encode, out_shardings=place), jax.jit(decode, out_shardings=place))


def given_groups(variates: np.ndarray | None, keep: int, levels: int) -> np.ndarray:
  """What is to be decoded as it is: bool [L], or [L, V] of pruned latents.

  Args:
    variates: [L, V], those that are known; None is all.
    keep: number of groups, from the coarsest.
    levels: L.
  """
  kept = np.arange(levels) < keep
  return kept if variates is None else variates & kept[:, None]


def key_of(rng: Array, number: int) -> Array:
  """The key of a batch: what `elbo.averages` hands to its sums."""
  return jax.random.fold_in(rng, number)


def make(
  model: Any, mesh: Mesh, masks: list[np.ndarray | None], num: int
) -> Callable[..., tuple[list[Result], np.ndarray]]:
  """Distortion, rate and similarity of reconstructions.

  Args:
    model: of the run.
    mesh: that batches lie on.
    masks: prunings to measure, each the variates [L, V] that are kept, or None for all.
    num: pictures to return.

  Returns:
    `run(params, model_state, step, batches, rng)`: a result for each mask, and the originals, uint8
    [num, H, W, C]; fewer pictures where there are fewer examples.
  """
  parts, levels = coders(model, mesh), len(model.level_names)

  @jax.jit
  def sums(params, model_state, batch, step, rng, variates, pictures):
    latent_rng = jax.random.split(rng)[0]
    if variates is None:
      _, (_, metrics) = model.loss(
        params, model_state, batch, rng=latent_rng, step=step, train=False
      )
    else:
      metrics = model.pruned(params, model_state, batch, latent_rng, variates)
    metrics = {**metrics, 'ssim': ssim.similarity(batch['image'], pictures)}
    return elbo.masked_sums(metrics, batch['mask'])

  def run(
    params: Any, model_state: Any, step: Array, batches: Iterator, rng: Array
  ) -> tuple[list[Result], np.ndarray]:
    drawn, originals = [[] for _ in masks], []

    def measure(batch: dict[str, Array], rng: Array) -> tuple[dict[str, Any], Array]:
      missing, found = num - sum(map(len, originals)), {}
      mask = sharding.to_host(batch['mask'])
      for i, variates in enumerate(masks):
        latents = parts.encode(params, model_state, batch, rng, variates)
        z, given = tuple(group.z for group in latents), given_groups(variates, levels, levels)
        pictures = parts.decode(params, model_state, z, rng, given, np.ones(levels, np.float32))
        found[i], size = sums(params, model_state, batch, step, rng, variates, pictures)
        if missing > 0:
          drawn[i].append(sharding.to_host(pictures)[mask][:missing])
      if missing > 0:
        originals.append(sharding.to_host(batch['image'])[mask][:missing])
      return {(i, name): v for i in found for name, v in found[i].items()}, size

    means = elbo.averages(measure, batches, rng)
    count = means.pop('num_examples')
    results = []
    for i, pictures in enumerate(drawn):
      numbers = {name: value for (j, name), value in means.items() if j == i}
      results.append(Result({**numbers, 'num_examples': count}, _joined(pictures)))
    return results, _joined(originals)

  return run


def _joined(parts: list[np.ndarray]) -> np.ndarray:
  return np.concatenate(parts) if parts else np.zeros((0, 1, 1, 1), np.uint8)
