"""Writer of the metrics and pictures of a run: TensorBoard event files and JSON lines."""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent import futures
import itertools
import json
import os
import pathlib
import time
from typing import Any, TextIO

import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.figures.films import FPS, encode_gif, save_gif, side_by_side
from hvae_tpu.figures.images import checked
from hvae_tpu.storage import buckets, quiet_tensorflow
from hvae_tpu.storage.files import strings_for_nonfinite


class Writer:
  """Writer of the numbers and pictures of one process start, below one directory.

  A thread of its own writes the event file. Its first work is to import CLU's writers: they import
  TensorFlow, which takes 3 to 30 s, while the model is built and compiled. No method waits for it
  but `flush` and `close`. The next call raises an error of that thread. The JSON lines are written
  at once, so they are complete even after a kill. In a bucket, everything is as of the last
  `publish`.

  Args:
    directory: made if it is missing.
    active: False on every process but one of a pod; then nothing is imported, and no method does
      anything.
    level_names: names of the entries of a metric of shape [L], such as 'res16/group03'.

  Raises:
    UserError: `directory` cannot be written.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    *,
    active: bool = True,
    level_names: tuple[str, ...] = (),
  ):
    self._active = active
    self._level_names = tuple(level_names)
    if not active:
      return
    directory, taken = os.fspath(directory), set()
    self._mirror = buckets.Mirror(directory) if buckets.is_remote(directory) else None
    if self._mirror:
      directory, taken = os.fspath(self._mirror.local), self._mirror.names()
    self._directory = pathlib.Path(directory)
    self._lines = _open_lines(directory, taken)
    self._thread = futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix='writer')
    self._events = self._thread.submit(_open_events, directory)
    self._pending = deque([self._events])

  def scalars(self, step: int, prefix: str, metrics: Mapping[str, Any]) -> None:
    """Writes numbers, and vectors [L] with one entry per level name, as `prefix/name`.

    A vector becomes one scalar per level, `prefix/name/res16/group03`, and one sum per resolution,
    `prefix/name_by_res/res16`, over the levels whose names start with `res16/`.

    Raises:
      UserError: a metric of another shape.
    """
    if not self._active:
      return
    values = {}
    for name, value in metrics.items():
      values.update(self._by_tag(f'{prefix}/{name}', np.asarray(value)))
    line = {'step': int(step), 'time': time.time(), **strings_for_nonfinite(values)}
    self._lines.write(json.dumps(line, allow_nan=False) + '\n')
    self._submit(lambda events: events.write_scalars(int(step), values))

  def images(self, step: int, prefix: str, pictures: Mapping[str, np.ndarray]) -> None:
    """Writes uint8 pictures [H, W, C], or [N, H, W, C] side by side, as `prefix/name`."""
    if not self._active:
      return
    values = {}
    for name, picture in pictures.items():
      values[f'{prefix}/{name}'] = checked(picture, f'{prefix}/{name}', ndims=(3, 4))
    self._submit(lambda events: events.write_images(int(step), values))

  def gif(self, step: int, tag: str, frames: np.ndarray, fps: float) -> None:
    """Writes uint8 frames [T, H, W, C] as an animation that TensorBoard shows among the images.

    CLU's writer drops videos, so the encoded file is written as the tensor of an image summary.
    It goes into the same event file as everything else: TensorBoard follows only the newest file
    of a directory.
    """
    if not self._active:
      return
    frames = checked(frames, tag, ndims=(4,))
    self._submit(lambda events: _write_gif(events, int(step), tag, frames, fps))

  def write(self, step: int, prefix: str, results: Mapping[str, Any]) -> None:
    """Writes the results of an evaluation.

    uint8 arrays of three or four axes are pictures. Those of five are films [N, T, H, W, C]: they
    become one animation side by side, which is also written to `prefix/name-step.gif`. Floats of
    two axes are values, whose histogram TensorBoard shows. Numbers and [L] go to `scalars`.

    Raises:
      UserError: a result of another shape.
    """
    if not self._active:
      return
    kinds = {'numbers': {}, 'values': {}, 'pictures': {}, 'films': {}}
    for name, result in results.items():
      array = np.asarray(result)
      kinds[_kind(array, f'{prefix}/{name}')][name] = array
    for name, film in kinds['films'].items():
      self.gif(step, f'{prefix}/{name}', side_by_side(film), FPS)
      save_gif(self._directory / prefix / f'{name}-{step}.gif', side_by_side(film))
    if kinds['numbers']:
      self.scalars(step, prefix, kinds['numbers'])
    if kinds['pictures']:
      self.images(step, prefix, kinds['pictures'])
    if kinds['values']:
      tagged = {f'{prefix}/{name}': value.reshape(-1) for name, value in kinds['values'].items()}
      self._submit(lambda events: events.write_histograms(int(step), tagged))

  def hparams(self, settings: Mapping[str, Any]) -> None:
    """Writes a flat dict of settings for TensorBoard's table of hyper-parameters."""
    if not self._active:
      return
    values = {
      k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in settings.items()
    }
    self._submit(lambda events: events.write_hparams(values))

  def text(self, step: int, tag: str, text: str) -> None:
    """Writes a text, which TensorBoard shows as Markdown."""
    if not self._active:
      return
    self._submit(lambda events: events.write_texts(int(step), {tag: text}))

  def flush(self) -> None:
    """Waits until everything written so far is in the files."""
    if not self._active:
      return
    self._submit(lambda events: events.flush())
    while self._pending:
      self._pending.popleft().result()

  def publish(self) -> None:
    """Copies everything written so far to the bucket, if the directory lies in one."""
    if self._active and self._mirror:
      self._submit(lambda events: (events.flush(), self._mirror.publish()))

  def close(self) -> None:
    """Flushes and closes the files; calling it again does nothing."""
    if not self._active or self._lines.closed:
      return
    try:
      self._submit(lambda events: events.close())
      self._thread.shutdown(wait=True)
      self._raise_errors()
    finally:
      self._lines.close()
      if self._mirror:
        self._mirror.close()

  def _submit(self, work: Callable[[Any], None]) -> None:
    """Queues `work(CLU writer)` behind all earlier work, then raises the errors so far."""
    self._pending.append(self._thread.submit(lambda: work(self._events.result())))
    self._raise_errors()

  def _raise_errors(self) -> None:
    while self._pending and self._pending[0].done():
      self._pending.popleft().result()

  def _by_tag(self, tag: str, value: np.ndarray) -> dict[str, float]:
    """Converts a metric to scalars by tag; see `scalars`."""
    if value.ndim == 0:
      return {tag: float(value)}
    if value.shape != (len(self._level_names),):
      raise UserError(
        f'metric {tag!r} has shape {list(value.shape)}; expected a scalar or '
        f'[{len(self._level_names)}], one entry per name in the level_names of the model'
      )
    levels = {f'{tag}/{name}': float(v) for name, v in zip(self._level_names, value, strict=True)}
    sums = {}
    for name, v in zip(self._level_names, value, strict=True):
      resolution, slash, _ = name.partition('/')
      if slash:
        key = f'{tag}_by_res/{resolution}'
        sums[key] = sums.get(key, 0.0) + float(v)
    return levels | sums


def _kind(array: np.ndarray, tag: str) -> str:
  """Returns the kind of a result of an evaluation; see `Writer.write`.

  Raises:
    UserError: it is none.
  """
  if array.ndim < 2:
    return 'numbers'
  if array.dtype == np.uint8 and array.ndim in (3, 4, 5):
    return 'films' if array.ndim == 5 else 'pictures'
  if array.dtype != np.uint8 and array.ndim == 2:
    return 'values'
  raise UserError(
    f'result {tag!r} is {array.dtype} {list(array.shape)}; expected a number or [L], uint8 '
    f'pictures [H, W, C] or [N, H, W, C], uint8 films [N, T, H, W, C], or values [1, n]'
  )


def _open_lines(directory: str, taken: set[str]) -> TextIO:
  """Opens `metrics-0001.jsonl`, or the next number that is free in `directory` and not `taken`.

  Lines appear in the file as they are written.
  """
  try:
    os.makedirs(directory, exist_ok=True)
    for number in itertools.count(1):
      name = f'metrics-{number:04d}.jsonl'
      if name in taken:
        continue
      try:
        return open(os.path.join(directory, name), 'x', buffering=1)
      except FileExistsError:
        continue
  except OSError as error:
    raise UserError(
      f'cannot write metrics to {directory!r} ({error.strerror}); give --workdir a directory that '
      'can be written'
    ) from error


def _open_events(directory: str) -> Any:
  """Imports CLU's writers and opens an event file in `directory`."""
  quiet_tensorflow.load()  # before CLU imports it
  from clu import metric_writers

  return metric_writers.SummaryWriter(directory)


def _write_gif(events: Any, step: int, tag: str, frames: np.ndarray, fps: float) -> None:
  from tensorboard.plugins.image import metadata

  height, width = frames.shape[1:3]
  value = [str(width).encode(), str(height).encode(), encode_gif(frames, fps)]
  summary_metadata = metadata.create_summary_metadata(display_name=None, description=None)
  events.write_summaries(step, {tag: value}, {tag: summary_metadata})
