"""Structural similarity of pictures and their reconstructions."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import Array

from hvae_tpu.evals import averaging
from hvae_tpu.metrics.ssim import similarity

NEEDS = ('encode', 'decode')


def make(model: Any, batches: Callable[..., Iterator]) -> Callable[..., dict[str, float]]:
  """Returns `run(params, model_state, step, rng)`: `ssim`, mean over a view, 1 for equal pictures.

  A reconstruction is one draw of the latent variables and of the pixels.
  """

  @jax.jit
  def sums(params, model_state, batch, rng):
    encode_rng, decode_rng = jax.random.split(rng)
    latents = model.encode(params, model_state, batch, encode_rng)
    pictures = model.decode(params, model_state, latents, decode_rng)
    return averaging.masked_sums({'ssim': similarity(batch['image'], pictures)}, batch['mask'])

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, float]:
    score = lambda batch, rng: sums(params, model_state, batch, rng)
    return averaging.averages(score, batches(), rng)

  return run
