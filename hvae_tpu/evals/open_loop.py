"""Open-loop prediction of video: what follows a few context frames, compared frame by frame."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.evals import film_strips, frame_quality

NEEDS = ('predict', 'cycle')
CHUNK = 100  # frames predicted at once, about


@dataclasses.dataclass(frozen=True)
class Options:
  """What `config.evals.open_loop` and `config.open_loop` have in common.

  Attributes:
    context: observed frames.
    num_examples: sequences; one of every video of the view, before the second of any.
    num_samples: predictions of each.
    chunk: frames predicted at once, so that memory does not grow with the length; 0: about 100.
    ssim_data_range, psnr_data_range: see `frame_quality`.
  """

  context: int = 36
  num_examples: int = 8
  num_samples: int = 1
  chunk: int = 0
  ssim_data_range: float = 2.0
  psnr_data_range: float = 1.0


class Outcome(NamedTuple):
  """The predictions of one example.

  Attributes:
    context: uint8 [context, H, W, C].
    true: uint8 [T, H, W, C], the frames behind the context.
    samples: float32 [num_samples, T, H, W, C], in [0, 1] and a little outside.
    scores: `ssim`, `ssim_range1`, `psnr` [num_samples, T].
    copied: the same of the last context frame, shown again and again: [T].
  """

  context: np.ndarray
  true: np.ndarray
  samples: np.ndarray
  scores: dict[str, np.ndarray]
  copied: dict[str, np.ndarray]

  def best(self, score: str) -> int:
    """The sample whose mean over time is highest; the last of equals."""
    return int(np.argsort(self.scores[score].mean(1), kind='stable')[-1])


def make(
  model: Any,
  batches: Callable[..., Iterator],
  seq_len: int = 0,
  batch_size: int = 0,
  **options: Any,
) -> Callable[..., dict[str, Any]]:
  """Scores of the best samples, and films of them.

  Args:
    seq_len: frames of an example with its context; 0: those of the view.
    batch_size: examples predicted at once; 0: as other evaluations.
    options: fields of `Options`.

  Returns:
    `run(params, model_state, step, rng)`: `ssim`, `ssim_range1` and `psnr`, means over examples and
    predicted frames of each example's best sample, and as `copy_last_*` those of the last context
    frame; `films`, uint8 [num_examples, T, 3 H, W, C]: target, best prediction, error.
  """
  options = Options(**options)
  predict = predictor(model, options)
  read = functools.partial(batches, seq_len=seq_len, batch_size=batch_size, spread=True)
  read().close()  # sizes that do not fit are told now, not at the first evaluation

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, Any]:
    found = list(outcomes(predict, params, model_state, read(), rng, options))
    numbers = {}
    for name in found[0].scores:
      numbers[name] = np.mean([o.scores[name][o.best(name)].mean() for o in found])
      numbers[f'copy_last_{name}'] = np.mean([o.copied[name].mean() for o in found])
    true = np.stack([o.true for o in found]).astype(np.float32) / 255
    best = np.stack([o.samples[o.best('ssim')] for o in found])
    return {**numbers, 'films': film_strips.compared(true, best)}

  return run


def predictor(model: Any, options: Options) -> Callable[..., np.ndarray]:
  """`predict(params, model_state, video, rng)` -> float32 [B, num_samples, T, H, W, C].

  `video` [B, context + T, H, W, C] is on the devices; predictions go to the host chunk by chunk.

  Raises:
    UserError: a chunk, a context or sequences that do not fit.
  """
  chunk = options.chunk or max(CHUNK // model.cycle, 1) * model.cycle
  if chunk % model.cycle:
    raise UserError(
      f'{chunk} frames at once (open_loop.chunk) must be a multiple of {model.cycle}, the frames '
      f'of one tick of the top level'
    )
  if options.context % model.cycle:
    raise UserError(
      f'{options.context} frames of context (open_loop.context) must be a multiple of '
      f'{model.cycle}, the frames of one tick of the top level'
    )

  @jax.jit
  def begin(video):
    return jnp.repeat(video[:, : options.context], options.num_samples, axis=0)

  def part(params, model_state, video, rng, carry, num, total):
    return model.predict(
      params,
      model_state,
      {'video': video},
      rng,
      options.context,
      carry,
      num=num,
      total=total,
    )

  part = jax.jit(part, static_argnames=('num', 'total'))

  def predict(params: Any, model_state: Any, video: Array, rng: Array) -> np.ndarray:
    count, length = video.shape[:2]
    left = total = length - options.context
    if left < 1:
      raise UserError(
        f'sequences of {length} frames leave nothing to predict behind a context of '
        f'{options.context}; raise open_loop.seq_len (or data.eval_seq_len), or lower '
        f'open_loop.context'
      )
    observed, carry, frames = begin(video), None, []
    while left:
      num = min(chunk, left)
      mean, carry = part(params, model_state, observed, rng, carry, num=num, total=total)
      frames.append(sharding.to_host(mean))
      left -= num
    frames = np.concatenate(frames, axis=1)
    return frames.reshape(count, options.num_samples, *frames.shape[1:])

  return predict


def outcomes(
  predict: Callable[..., np.ndarray],
  params: Any,
  model_state: Any,
  batches: Iterator,
  rng: Array,
  options: Options,
) -> Iterator[Outcome]:
  """The first `num_examples` of `batches`, one after the other."""
  left = options.num_examples
  for i, batch in enumerate(batches):
    samples = predict(params, model_state, batch['video'], jax.random.fold_in(rng, i))
    video, mask = sharding.to_host((batch['video'], batch['mask']))
    for example, drawn in zip(video[mask][:left], samples[mask], strict=False):
      yield outcome(example, drawn, options)
    left -= int(mask.sum())
    if left <= 0:
      return


def outcome(video: np.ndarray, samples: np.ndarray, options: Options) -> Outcome:
  """Scores the predictions of one example [context + T, H, W, C]."""
  context, true = video[: options.context], video[options.context :]
  # Without a context, black is as good a guess as any.
  last = context[-1:] if len(context) else np.zeros_like(true[:1])
  measure = lambda frames: scores(true.astype(np.float32) / 255, frames, options)
  return Outcome(context, true, samples, measure(samples), measure(last.astype(np.float32) / 255))


def scores(true: np.ndarray, predicted: np.ndarray, options: Options) -> dict[str, np.ndarray]:
  """By name, per frame; leading axes are broadcast."""
  return {
    'ssim': frame_quality.similarity(true, predicted, options.ssim_data_range),
    'ssim_range1': frame_quality.similarity(true, predicted, 1.0),
    'psnr': frame_quality.peak_ratio(true, predicted, options.psnr_data_range),
  }
