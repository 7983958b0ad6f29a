"""Reconstructions from all or some latent channels: rate, distortion, similarity and pictures.

A batch has one key. The first part of it draws the latent variables, in encoding as in decoding.
So stored latents are decoded to the same pictures, bit for bit, and the variates that were not
stored are drawn again with the same noise.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.sharding import Mesh
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.evals import averaging
from hvae_tpu.metrics.ssim import similarity
from hvae_tpu.nn import distributions

NEEDS = ('loss', 'encode', 'decode', 'level_names')


class Coders(NamedTuple):
  """Jitted halves of a reconstruction, used by every mode that encodes or decodes.

  Attributes:
    encode: (params, model_state, batch, rng, variates [L, V] or None) -> Latents.
    decode: (params, model_state, z of every group, rng, given [L] or [L, V], temperature [L]) ->
      uint8 [B, H, W, C].
  """

  encode: Callable[..., Any]
  decode: Callable[..., Array]


class Result(NamedTuple):
  """Result of one pruning.

  Attributes:
    numbers: mean of every metric over the examples, and `ssim`, `num_examples`.
    pictures: reconstructions of the first examples, uint8 [num, H, W, C].
  """

  numbers: dict[str, Any]
  pictures: np.ndarray


def coders(model: Any, mesh: Mesh) -> Coders:
  """Returns the programs for batches on a mesh."""

  def encode(params, model_state, batch, rng, variates):
    pruning = () if variates is None else (variates,)
    return model.encode(params, model_state, batch, jax.random.split(rng)[0], *pruning)

  def decode(params, model_state, z, rng, given, temperature):
    latents = tuple(distributions.Group(None, None, values) for values in z)
    return model.decode(params, model_state, latents, rng, temperature, given)

  place = sharding.batch_sharding(mesh)
  return Coders(jax.jit(encode, out_shardings=place), jax.jit(decode, out_shardings=place))


def given_groups(variates: np.ndarray | None, keep: int, levels: int) -> np.ndarray:
  """Returns a mask of the latents to keep when decoding; the others are drawn from the prior.

  Args:
    variates: bool [L, V], the variates that are stored; None is all.
    keep: number of groups, from the coarsest.
    levels: L.

  Returns:
    bool [L], or [L, V] of pruned latents.
  """
  groups = np.arange(levels) < keep
  return groups if variates is None else variates & groups[:, None]


def key_of(rng: Array, number: int) -> Array:
  """Returns the key of a batch, which `averaging.averages` hands to its sums."""
  return jax.random.fold_in(rng, number)


def make(
  model: Any, mesh: Mesh, masks: list[np.ndarray | None], num: int
) -> Callable[..., tuple[list[Result], np.ndarray]]:
  """Returns the measurement of distortion, rate and similarity of reconstructions.

  Args:
    model: model of the run.
    mesh: that batches lie on.
    masks: prunings to measure: bool [L, V] each, the variates to keep, or None for all.
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
    metrics = {**metrics, 'ssim': similarity(batch['image'], pictures)}
    return averaging.masked_sums(metrics, batch['mask'])

  def run(
    params: Any, model_state: Any, step: Array, batches: Iterator, rng: Array
  ) -> tuple[list[Result], np.ndarray]:
    reconstructions, originals = [[] for _ in masks], []

    def measure(batch: dict[str, Array], rng: Array) -> tuple[dict[str, Any], Array]:
      missing, sums_of = num - sum(map(len, originals)), {}
      mask = sharding.to_host(batch['mask']) if missing > 0 else None
      for i, variates in enumerate(masks):
        latents = parts.encode(params, model_state, batch, rng, variates)
        z, given = tuple(group.z for group in latents), given_groups(variates, levels, levels)
        pictures = parts.decode(params, model_state, z, rng, given, np.ones(levels, np.float32))
        sums_of[i], size = sums(params, model_state, batch, step, rng, variates, pictures)
        if missing > 0:
          reconstructions[i].append(sharding.to_host(pictures)[mask][:missing])
      if missing > 0:
        originals.append(sharding.to_host(batch['image'])[mask][:missing])
      return {(i, name): v for i in sums_of for name, v in sums_of[i].items()}, size

    means = averaging.averages(measure, batches, rng)
    count = means.pop('num_examples')
    results = []
    for i, pictures in enumerate(reconstructions):
      numbers = {name: value for (j, name), value in means.items() if j == i}
      results.append(Result({**numbers, 'num_examples': count}, _joined(pictures)))
    return results, _joined(originals)

  return run


def _joined(parts: list[np.ndarray]) -> np.ndarray:
  return np.concatenate(parts) if parts else np.zeros((0, 1, 1, 1), np.uint8)
