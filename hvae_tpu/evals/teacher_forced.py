"""Videos as a model that observes every frame has them: decoded from posteriors, and from priors.

A prior is one tick ahead: it has seen all ticks but the one that it is of.
"""

from collections.abc import Callable, Iterator
import contextlib
import functools
from typing import Any

import jax
from jax import Array
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.figures import film_strips
from hvae_tpu.metrics import frame_quality, score_curves

NEEDS = ('reconstruct',)


def make(
  model: Any, batches: Callable[..., Iterator], num: int = 4, seq_len: int = 36
) -> Callable[..., dict[str, Any]]:
  """Films of the first videos, and how close the frames are.

  Args:
    num: videos; no more than a batch has.
    seq_len: frames of each; 0: those of the view.

  Returns:
    `run(params, model_state, step, rng)`: `posterior_psnr` and `prior_psnr`, dB, means over frames;
    `films`, uint8 [num, T, 3 H, W, C]: target, from posteriors, from priors.

  Raises:
    UserError: `num` is below 1, or sequences are shorter than `seq_len`.
  """
  if num < 1:
    raise UserError(f'config.evals.teacher_forced.num={num} must be at least 1')
  decode = jax.jit(model.reconstruct)
  read = functools.partial(batches, seq_len=seq_len, interleave_videos=True)
  read().close()  # sizes that do not fit are told now, not at the first evaluation

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, Any]:
    with contextlib.closing(read()) as opened:
      batch = next(opened)
    found = decode(params, model_state, batch, rng)
    video, mask, *decoded = sharding.to_host((batch['video'], batch['mask'], *found))
    true = video[mask][:num].astype(np.float32) / 255
    decoded = [frames[mask][:num] for frames in decoded]
    close = {
      name: score_curves.moments(frame_quality.peak_ratio(true, frames, 1.0)).mean
      for name, frames in zip(('posterior_psnr', 'prior_psnr'), decoded, strict=True)
    }
    return {**close, 'films': film_strips.stacked(true, *decoded)}

  return run
