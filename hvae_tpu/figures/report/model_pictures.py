"""Pictures that the model draws for the page, as far as it has the methods."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from hvae_tpu.devices import sharding

MOST_CUTS = 16  # at most so many steps of the progressive decoding, besides the first


class ModelPictures(NamedTuple):
  """Pictures (uint8) and KL per group; None where the model lacks the method.

  Attributes:
    samples: samples [T, N, H, W, C], one row per temperature.
    originals: pictures of the data set [N, H, W, C].
    partial: number of groups kept -> reconstructions [N, H, W, C]; the last entry keeps all.
    kl: KL per group [L], nats per example, mean over one batch.
  """

  samples: np.ndarray | None
  originals: np.ndarray | None
  partial: dict[int, np.ndarray] | None
  kl: np.ndarray | None


def draw(
  model: Any,
  params: Any,
  state_at: Callable[[Any], Any],
  batches: Iterator[dict[str, jax.Array]],
  num: int,
  temperatures: list[np.ndarray],
  partial_temperature: float,
  seed: int,
) -> ModelPictures:
  """Draws `num` pictures of each kind.

  Args:
    state_at: function from a temperature [L] to the model state for sampling.
    batches: evaluation batches; only the first is used.
    temperatures: one array [L] per row of samples.
    partial_temperature: temperature of the groups that are drawn from their prior.
  """
  rng, state = jax.random.key(seed), state_at(None)
  samples = originals = partial = kl = None
  if hasattr(model, 'sample'):
    sample = jax.jit(model.sample, static_argnums=3)
    rows = [sample(params, state_at(t), rng, num, t) for t in temperatures]
    samples = np.stack([sharding.to_host(row) for row in rows])
  batch = next(batches)
  if hasattr(model, 'kl_per_variate'):
    per_variate = jax.jit(model.kl_per_variate)(params, state, batch, rng)
    kl = sharding.to_host(per_variate)[sharding.to_host(batch['mask'])].sum(-1).mean(0)
  if hasattr(model, 'encode') and hasattr(model, 'decode'):
    images = sharding.to_host(batch['image'])[sharding.to_host(batch['mask'])][:num]
    latents = jax.jit(model.encode)(params, state, {'image': images}, rng)
    decode, levels = jax.jit(model.decode), len(model.level_names)
    cuts = np.unique(np.linspace(0, levels, min(levels, MOST_CUTS) + 1).round().astype(int))
    keep = lambda k: decode(params, state, latents, rng, partial_temperature, np.arange(levels) < k)
    partial = {int(k): sharding.to_host(keep(k)) for k in cuts}
    originals = images
  return ModelPictures(samples, originals, partial, kl)


def error_map(originals: np.ndarray, pictures: np.ndarray) -> np.ndarray:
  """Draws the mean absolute difference over colours as heat: black, red, yellow, white."""
  error = np.abs(originals.astype(np.int16) - pictures).mean(-1)
  points = (0, 85, 170, 255)
  channels = ((0, 200, 255, 255), (0, 30, 200, 255), (0, 20, 40, 255))
  return np.stack([np.interp(error, points, c) for c in channels], axis=-1).astype(np.uint8)
