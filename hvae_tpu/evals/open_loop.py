"""Open-loop prediction of video from a few context frames, compared frame by frame."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.errors import UserError
from hvae_tpu.evals import averaging
from hvae_tpu.figures import film_strips
from hvae_tpu.metrics import frame_quality, score_curves
from hvae_tpu.settings import setting

NEEDS = ('predict', 'cycle')
WHERE = 'config.evals.open_loop'
CHUNK = 100  # frames predicted at once, about
FILMED = 8  # examples that are shown


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of evaluation `open_loop`, and of `--mode=open_loop`."""

  context: int = setting(36, least=1)  # observed frames, a multiple of the model's cycle
  seq_len: int = setting(0, least=0)  # frames of an example with its context; 0: data.eval_seq_len
  batch_size: int = setting(0, least=0)  # examples predicted at once; 0: evals.batch_size
  # examples; the first clips of all videos come before their second clips
  num_examples: int = setting(8, least=1)
  num_samples: int = setting(1, least=1)  # predictions of each example; the best one counts
  # frames predicted at once, which memory grows with, a multiple of the cycle; 0: about 100
  chunk: int = setting(0, least=0)
  # L of the SSIM; the reference's, although pixels lie in [0, 1], which gives higher values than 1
  ssim_data_range: float = setting(2.0, above=0)
  psnr_data_range: float = setting(1.0, above=0)


def _check_cycle(options: Options, cycle: int, where: str) -> None:
  """Raises UserError if the context or chunks end amid a tick of the top level."""
  for name in ('context', 'chunk'):
    frames = getattr(options, name)
    below = frames // cycle * cycle
    if frames != below:
      near = ' or '.join(str(n) for n in (below, below + cycle) if n)
      raise UserError(
        f'{where}.{name}={frames} must be a multiple of {cycle}, the frames of one tick of the top '
        f'level; try {near}'
      )


def _check_length(options: Options, length: int, where: str) -> None:
  """Raises UserError if nothing of sequences of so many frames is left to predict."""
  if length <= options.context:
    raise UserError(
      f'{where}.context={options.context} leaves nothing to predict of sequences of {length} '
      f'frames; lower it, or raise {where}.seq_len (or config.data.eval_seq_len)'
    )


class Outcome(NamedTuple):
  """Predictions of one example, and their scores.

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
    """Returns the number of the sample with the highest mean over time; the last of equals."""
    return int(np.argsort(self.scores[score].mean(1), kind='stable')[-1])

  def curves(self) -> dict[str, np.ndarray]:
    """Returns scores [T] of the best sample by each score, and as `copy_last_*` the copied."""
    best = {name: values[self.best(name)] for name, values in self.scores.items()}
    return best | {f'copy_last_{name}': values for name, values in self.copied.items()}

  def film(self) -> np.ndarray:
    """Returns target, prediction that is best by SSIM, and error: uint8 [T, 3 H, W, C]."""
    true = self.true[np.newaxis].astype(np.float32) / 255
    return film_strips.compared(true, self.samples[self.best('ssim')][np.newaxis])[0]


def make(
  model: Any,
  batches: Callable[..., Iterator],
  options: Options = Options(),
  where: str = WHERE,
) -> Callable[..., dict[str, Any]]:
  """Returns the evaluation: scores of the best samples, and films of them.

  Args:
    model: model of the run.
    batches: see `evals`.
    options: settings of the prediction.
    where: the path of the options in the config, which errors name.

  Returns:
    `run(params, model_state, step, rng)`: `ssim`, `ssim_range1` and `psnr`, means over examples and
    predicted frames of each example's best sample, and as `copy_last_*` those of the last context
    frame; `psnr_left_out` and `copy_last_psnr_left_out`, how many frames these leave out because
    their PSNR is infinite; `num_examples`; `films`, uint8 [N, T, 3 H, W, C]: target, best
    prediction, error, of the first examples.

  Raises:
    UserError: options that do not fit each other, the model or the sequences.
  """
  predict = predictor(model, options, where)
  sizes = dict(seq_len=options.seq_len, batch_size=options.batch_size)
  read = functools.partial(batches, **sizes, interleave_videos=True)
  # Sizes that do not fit are refused now, not at the first evaluation.
  with contextlib.closing(read()) as opened:
    _check_length(options, options.seq_len or next(opened)['video'].shape[1], where)

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, Any]:
    curves, films = [], []
    for outcome in predict(params, model_state, read(), rng):
      curves.append(outcome.curves())
      if len(films) < FILMED:
        films.append(outcome.film())
    return {**means(gathered(curves)), 'num_examples': len(curves), 'films': np.stack(films)}

  return run


def gathered(curves: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Stacks the curves [T] of every example to [examples, T], by name."""
  return {name: np.stack([curve[name] for curve in curves]) for name in curves[0]}


def means(curves: dict[str, np.ndarray]) -> dict[str, Any]:
  """Computes means of all scores [examples, T] by name, and how many of a PSNR are left out."""
  numbers = {}
  for name, values in curves.items():
    moments = score_curves.moments(values)
    numbers[name] = moments.mean
    if name.endswith('psnr'):
      numbers[f'{name}_left_out'] = moments.left_out
  return numbers


def predictor(
  model: Any, options: Options, where: str = WHERE
) -> Callable[[Any, Any, Iterator, Array], Iterator[Outcome]]:
  """Returns the prediction of the first `num_examples` of a view, and their scores.

  Args:
    model: model of the run.
    options: settings of the prediction.
    where: the path of the options in the config, which errors name.

  Returns:
    `run(params, model_state, batches, rng)` -> outcomes, one example after the other. Batches are
    emptied. Predictions go to the host chunk by chunk, while the devices compute the next chunk.

  Raises:
    UserError: a chunk or a context that does not fit the model; on use, sequences that are not
      longer than the context.
  """
  _check_cycle(options, model.cycle, where)
  predict = _chunks(model, options)

  def run(params: Any, model_state: Any, batches: Iterator, rng: Array) -> Iterator[Outcome]:
    def results() -> Iterator[tuple]:
      """Yields (frames, None) of every chunk, and with the last one (frames, true videos)."""
      left = options.num_examples
      for i, batch in enumerate(batches):
        length = batch['video'].shape[1]
        _check_length(options, length, where)
        context = _first(batch['video'], options.context)
        video, mask = sharding.to_host((batch['video'], batch['mask']))
        batch.clear()  # while they predict, the devices hold no more than the context
        key, total = jax.random.fold_in(rng, i), length - options.context
        for done, frames in predict(params, model_state, context, total, key):
          yield frames, video[mask][:left] if done == total else None, mask
        left -= int(mask.sum())
        if left <= 0:
          return

    parts = []
    for frames, videos, mask in averaging.on_host(results(), ahead=1):
      parts.append(frames)
      if videos is not None:
        samples = np.concatenate(parts, axis=1, dtype=np.float32)
        samples = samples.reshape(len(mask), options.num_samples, *samples.shape[1:])
        parts = []
        for video, predictions in zip(videos, samples[mask], strict=False):
          yield outcome(video, predictions, options)

  return run


def _chunks(model: Any, options: Options) -> Callable[..., Iterator[tuple[int, Array]]]:
  """Returns `run(params, model_state, context, total, rng)`, which predicts chunk by chunk.

  `context` is [B, context, H, W, C]. It yields how many of `total` frames are predicted, and the
  frames of the chunk, float32 [B * num_samples, frames, H, W, C].
  """
  chunk = options.chunk or max(CHUNK // model.cycle, 1) * model.cycle
  repeat = jax.jit(lambda context: jnp.repeat(context, options.num_samples, axis=0))

  def part(params, model_state, video, rng, carry, num, total):
    batch = {'video': video}
    return model.predict(
      params, model_state, batch, rng, options.context, carry, num=num, total=total
    )

  part = jax.jit(part, static_argnames=('num', 'total'))

  def run(
    params: Any, model_state: Any, context: Array, total: int, rng: Array
  ) -> Iterator[tuple[int, Array]]:
    observed, carry = repeat(context), None
    for start in range(0, total, chunk):
      num = min(chunk, total - start)
      frames, carry = part(params, model_state, observed, rng, carry, num=num, total=total)
      yield start + num, frames

  return run


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
  """Computes scores by name, per frame; leading axes are broadcast."""
  return {
    'ssim': frame_quality.similarity(true, predicted, options.ssim_data_range),
    'ssim_range1': frame_quality.similarity(true, predicted, 1.0),
    'psnr': frame_quality.peak_ratio(true, predicted, options.psnr_data_range),
  }
