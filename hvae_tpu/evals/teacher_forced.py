"""Films of videos whose frames are all observed: decoded from posteriors, and from priors.

The priors are one tick ahead: that of a tick has seen all ticks before it.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import functools
from typing import Any

import jax
from jax import Array
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.figures import film_strips
from hvae_tpu.metrics import frame_quality, score_curves
from hvae_tpu.settings import setting

NEEDS = ('reconstruct',)


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of evaluation `teacher_forced`."""

  num: int = setting(4, least=1)  # videos; no more than a batch has
  seq_len: int = setting(36, least=0)  # frames of each video; 0: data.eval_seq_len


def make(
  model: Any,
  batches: Callable[..., Iterator],
  options: Options = Options(),
  where: str = 'config.evals.teacher_forced',
) -> Callable[..., dict[str, Any]]:
  """Returns the evaluation of the first videos.

  Returns:
    `run(params, model_state, step, rng)`: `posterior_psnr` and `prior_psnr`, dB, means over frames;
    `films`, uint8 [num, T, 3 H, W, C]: target, from posteriors, from priors.

  Raises:
    UserError: sequences are shorter than `seq_len`.
  """
  decode = jax.jit(model.reconstruct)
  read = functools.partial(batches, seq_len=options.seq_len, interleave_videos=True)
  read().close()  # sizes that do not fit are refused now, not at the first evaluation

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, Any]:
    with contextlib.closing(read()) as opened:
      batch = next(opened)
    results = decode(params, model_state, batch, rng)
    video, mask, *decoded = sharding.to_host((batch['video'], batch['mask'], *results))
    true = video[mask][: options.num].astype(np.float32) / 255
    decoded = [frames[mask][: options.num] for frames in decoded]
    psnr = {
      name: score_curves.moments(frame_quality.peak_ratio(true, frames, 1.0)).mean
      for name, frames in zip(('posterior_psnr', 'prior_psnr'), decoded, strict=True)
    }
    return {**psnr, 'films': film_strips.stacked(true, *decoded)}

  return run
