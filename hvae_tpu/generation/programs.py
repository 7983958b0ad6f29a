"""Jitted encoding, decoding and sampling of a model, and the noise that sampling takes.

Noise is a tuple over the groups, like `Latents`: float32 [N, h, w, zdim] each.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any

import jax
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.nn.distributions import Latents

Noise = tuple[np.ndarray, ...]
BATCH = 32  # pictures at a time


@functools.cache
def _generate(model: Any) -> Callable[..., tuple[Latents, jax.Array]]:
  def generate(params, state, rng, noise, temperature):
    latents = model.draw_prior(params, state, rng, len(noise[0]), temperature, noise)
    return latents, model.decode(params, state, latents, rng)

  return jax.jit(generate)


@functools.cache
def _decode(model: Any) -> Callable[..., jax.Array]:
  return jax.jit(model.decode)


@functools.cache
def _encode(model: Any) -> Callable[..., Latents]:
  return jax.jit(model.encode)


def generate(
  model: Any, params: Any, state: Any, noise: Noise, temperature: Any = None, seed: int = 0
) -> tuple[Latents, np.ndarray]:
  """Generates latents and pictures from noise.

  Args:
    noise: [N, h, w, zdim] for every group.
    temperature: one number or one per level; None is 1.
    seed: seed of the pixels.

  Returns:
    Latents with leading [N], and pictures, uint8 [N, H, W, C].
  """
  run = lambda part: _generate(model)(params, state, jax.random.key(seed), part, temperature)
  return _in_batches(run, noise)


def decode(model: Any, params: Any, state: Any, latents: Latents, seed: int = 0) -> np.ndarray:
  """Decodes latents with leading [N] to pictures, uint8 [N, H, W, C]."""
  run = lambda part: _decode(model)(params, state, part, jax.random.key(seed))
  return _in_batches(run, latents)


def encode(model: Any, params: Any, state: Any, images: np.ndarray, seed: int = 0) -> Latents:
  """Draws the latents of uint8 pictures [N, H, W, C] from the posterior."""
  return sharding.to_host(_encode(model)(params, state, {'image': images}, jax.random.key(seed)))


def _in_batches(run: Callable[[Any], Any], tree: Any) -> Any:
  """Calls `run` on up to `BATCH` rows at a time, always of one shape; joins the results."""
  count = len(jax.tree.leaves(tree)[0])
  size, results = min(count, BATCH), []
  for start in range(0, count, size):
    rows = np.minimum(np.arange(start, start + size), count - 1)
    results.append(sharding.to_host(run(jax.tree.map(lambda a, rows=rows: a[rows], tree))))
  return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *results)


def shapes(model: Any, params: Any, state: Any) -> tuple[tuple[int, int, int], ...]:
  """Returns the shape [h, w, zdim] of every group."""
  draw = lambda p, s: model.draw_prior(p, s, jax.random.key(0), 1)
  return tuple(group.z.shape[1:] for group in jax.eval_shape(draw, params, state))


def draw(shapes: Sequence[tuple[int, ...]], *seed: int) -> Noise:
  """Draws standard normal noise for one picture, [h, w, zdim] for every group."""
  rng = np.random.default_rng(seed)
  return tuple(rng.standard_normal(shape, np.float32) for shape in shapes)


def stacked(noises: Sequence[Noise]) -> Noise:
  """Stacks the noise of several pictures: [N, h, w, zdim] for every group."""
  return tuple(map(np.stack, zip(*noises, strict=True)))


def check_group(model: Any, group: int, key: str) -> None:
  """Raises UserError if the model has no such group; the message names the option `key`."""
  levels = len(model.level_names)
  if isinstance(group, bool) or not isinstance(group, int) or not 0 <= group < levels:
    raise UserError(
      f'{key} has {group!r}; the model has {levels} groups, 0 (the coarsest) to {levels - 1}'
    )
