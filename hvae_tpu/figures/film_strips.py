"""Pictures of the frames of videos: lines of a strip, and target over prediction over error."""

import numpy as np

STRIP = 50  # frames in a line


def to_uint8(frames: np.ndarray) -> np.ndarray:
  """Converts frames in [0, 1] to 0..255: clipped, then truncated as the reference does."""
  return (np.clip(frames, 0, 1) * 255).astype(np.uint8)


def strips(frames: np.ndarray, strict_reference: bool = False) -> np.ndarray:
  """Draws lines of 50 frames with a black column between them, one under the other.

  Args:
    frames: uint8 [T, H, W, C].
    strict_reference: whether to leave out the last line, as the reference does, unless it is the
      only one.

  Returns:
    uint8 [lines * H, n * W + n - 1, C], black where the last line has fewer frames.
  """
  length, height, width, channels = frames.shape
  per_line = min(length, STRIP)
  count = -(-length // per_line)
  if strict_reference:
    count = max(count - 1, 1)
  picture = np.zeros((count * height, per_line * (width + 1) - 1, channels), np.uint8)
  for i in range(min(length, count * per_line)):
    line, place = divmod(i, per_line)
    rows = slice(line * height, (line + 1) * height)
    picture[rows, place * (width + 1) : place * (width + 1) + width] = frames[i]
  return picture


def compared(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """Stacks target, prediction and error one under the other.

  Args:
    true, predicted: [N, T, H, W, C], [0, 1]; predictions are clipped to it.

  Returns:
    uint8 [N, T, 3 H, W, C]. Where the error is 0, it is grey.
  """
  predicted = np.clip(predicted, 0, 1)
  return stacked(true, predicted, (predicted - true + 1) / 2)


def stacked(*films: np.ndarray) -> np.ndarray:
  """Stacks films [N, T, H, W, C] in [0, 1] vertically: uint8 [N, T, films * H, W, C]."""
  return to_uint8(np.concatenate(films, axis=2))
