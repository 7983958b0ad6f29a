"""Open-loop prediction of video: what follows a few context frames, compared frame by frame."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.figures import film_strips
from hvae_tpu.metrics import frame_quality, score_curves

NEEDS = ('predict', 'cycle')
CHUNK = 100  # frames predicted at once, about
FILMED = 8  # examples that are shown


@dataclasses.dataclass(frozen=True)
class Options:
  """What `config.evals.open_loop` and `config.open_loop` have in common.

  Attributes:
    section: which of the two it is, for messages.
    context: observed frames.
    seq_len: frames of an example with its context; 0: those of the view.
    batch_size: examples predicted at once; 0: as other evaluations.
    num_examples: sequences; one of every video of the view, before the second of any.
    num_samples: predictions of each.
    chunk: frames predicted at once, so that memory does not grow with the length; 0: about 100.
    ssim_data_range, psnr_data_range: see `frame_quality`.

  Raises:
    UserError: a number out of its range.
  """

  section: str = 'config.evals.open_loop'
  context: int = 36
  seq_len: int = 0
  batch_size: int = 0
  num_examples: int = 8
  num_samples: int = 1
  chunk: int = 0
  ssim_data_range: float = 2.0
  psnr_data_range: float = 1.0

  def __post_init__(self):
    for name in ('context', 'num_examples', 'num_samples'):
      if getattr(self, name) < 1:
        raise UserError(f'{self.named(name)} must be at least 1')
    for name in ('seq_len', 'batch_size', 'chunk'):
      if getattr(self, name) < 0:
        raise UserError(f'{self.named(name)} must not be negative; 0 takes what is usual')
    for name in ('ssim_data_range', 'psnr_data_range'):
      if not 0 < getattr(self, name) < math.inf:
        raise UserError(f'{self.named(name)} must be more than 0, and finite')

  def named(self, name: str) -> str:
    """A field as the command line sets it."""
    return f'{self.section}.{name}={getattr(self, name)}'

  def check_cycle(self, cycle: int) -> None:
    """Raises UserError if the context or chunks end amid a tick of the top level."""
    for name in ('context', 'chunk'):
      below = getattr(self, name) // cycle * cycle
      if getattr(self, name) != below:
        near = ' or '.join(str(n) for n in (below, below + cycle) if n)
        raise UserError(
          f'{self.named(name)} must be a multiple of {cycle}, the frames of one tick of the top '
          f'level; try {near}'
        )

  def check_length(self, length: int) -> None:
    """Raises UserError if nothing of sequences of so many frames is left to predict."""
    if length <= self.context:
      raise UserError(
        f'{self.named("context")} leaves nothing to predict of sequences of {length} frames; lower '
        f'it, or raise {self.section}.seq_len (or config.data.eval_seq_len)'
      )


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

  def curves(self) -> dict[str, np.ndarray]:
    """Scores [T] of the best samples, each by its own score, and as `copy_last_*` the copied."""
    best = {name: values[self.best(name)] for name, values in self.scores.items()}
    return best | {f'copy_last_{name}': values for name, values in self.copied.items()}

  def film(self) -> np.ndarray:
    """uint8 [T, 3 H, W, C]: target, prediction that is best by SSIM, error."""
    true = self.true[np.newaxis].astype(np.float32) / 255
    return film_strips.compared(true, self.samples[self.best('ssim')][np.newaxis])[0]


def make(
  model: Any, batches: Callable[..., Iterator], **options: Any
) -> Callable[..., dict[str, Any]]:
  """Scores of the best samples, and films of them.

  Args:
    options: fields of `Options`.

  Returns:
    `run(params, model_state, step, rng)`: `ssim`, `ssim_range1` and `psnr`, means over examples and
    predicted frames of each example's best sample, and as `copy_last_*` those of the last context
    frame; `psnr_left_out` and `copy_last_psnr_left_out`, the frames that these leave out, whose
    PSNR is infinite; `num_examples`; `films`, uint8 [N, T, 3 H, W, C]: target, best
    prediction, error, of the first examples.

  Raises:
    UserError: options that do not fit each other, the model or the sequences.
  """
  options = Options(**options)
  predict = predictor(model, options)
  sizes = dict(seq_len=options.seq_len, batch_size=options.batch_size)
  read = functools.partial(batches, **sizes, interleave_videos=True)
  # What does not fit is told now, not at the first evaluation.
  with contextlib.closing(read()) as opened:
    options.check_length(options.seq_len or next(opened)['video'].shape[1])

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, Any]:
    curves, films = [], []
    for found in outcomes(predict, params, model_state, read(), rng, options):
      curves.append(found.curves())
      if len(films) < FILMED:
        films.append(found.film())
    return {**means(gathered(curves)), 'num_examples': len(curves), 'films': np.stack(films)}

  return run


def gathered(curves: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Curves [T] of every example -> [examples, T], by name."""
  return {name: np.stack([curve[name] for curve in curves]) for name in curves[0]}


def means(curves: dict[str, np.ndarray]) -> dict[str, Any]:
  """Means of all scores [examples, T] by name, and how many of a PSNR are left out."""
  numbers = {}
  for name, values in curves.items():
    found = score_curves.moments(values)
    numbers[name] = found.mean
    if name.endswith('psnr'):
      numbers[f'{name}_left_out'] = found.left_out
  return numbers


def predictor(model: Any, options: Options) -> Callable[..., np.ndarray]:
  """`predict(params, model_state, context, total, rng)` -> [B, num_samples, total, H, W, C].

  `context` [B, context, H, W, C] is on the devices; predictions, float32, go to the host chunk by
  chunk.

  Raises:
    UserError: a chunk or a context that does not fit the model.
  """
  options.check_cycle(model.cycle)
  chunk = options.chunk or max(CHUNK // model.cycle, 1) * model.cycle
  repeat = jax.jit(lambda context: jnp.repeat(context, options.num_samples, axis=0))

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

  def predict(params: Any, model_state: Any, context: Array, total: int, rng: Array) -> np.ndarray:
    observed, carry = repeat(context), None
    frames = np.empty((len(observed), total, *observed.shape[2:]), np.float32)
    for done in range(0, total, chunk):
      num = min(chunk, total - done)
      mean, carry = part(params, model_state, observed, rng, carry, num=num, total=total)
      frames[:, done : done + num] = sharding.to_host(mean)
    return frames.reshape(len(context), options.num_samples, *frames.shape[1:])

  return predict


def outcomes(
  predict: Callable[..., np.ndarray],
  params: Any,
  model_state: Any,
  batches: Iterator,
  rng: Array,
  options: Options,
) -> Iterator[Outcome]:
  """The first `num_examples` of `batches`, one after the other; batches are emptied.

  Raises:
    UserError: sequences that are not longer than the context.
  """
  left = options.num_examples
  for i, batch in enumerate(batches):
    length = batch['video'].shape[1]
    options.check_length(length)
    context = _first(batch['video'], options.context)
    video, mask = sharding.to_host((batch['video'], batch['mask']))
    batch.clear()  # while they predict, the devices hold no more than the context
    key = jax.random.fold_in(rng, i)
    samples = predict(params, model_state, context, length - options.context, key)
    for example, drawn in zip(video[mask][:left], samples[mask], strict=False):
      yield outcome(example, drawn, options)
    left -= int(mask.sum())
    if left <= 0:
      return


@functools.partial(jax.jit, static_argnums=1)
def _first(video: Array, count: int) -> Array:
  return video[:, :count]


def outcome(video: np.ndarray, samples: np.ndarray, options: Options) -> Outcome:
  """Scores the predictions of one example [context + T, H, W, C]."""
  context, true = video[: options.context], video[options.context :]
  measure = lambda frames: scores(true.astype(np.float32) / 255, frames, options)
  copied = measure(context[-1:].astype(np.float32) / 255)
  return Outcome(context, true, samples, measure(samples), copied)


def scores(true: np.ndarray, predicted: np.ndarray, options: Options) -> dict[str, np.ndarray]:
  """By name, per frame; leading axes are broadcast."""
  return {
    'ssim': frame_quality.similarity(true, predicted, options.ssim_data_range),
    'ssim_range1': frame_quality.similarity(true, predicted, 1.0),
    'psnr': frame_quality.peak_ratio(true, predicted, options.psnr_data_range),
  }
