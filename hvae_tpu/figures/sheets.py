"""Contact sheets and numbered sheets: pictures with words beside them, on white paper."""

from collections.abc import Sequence
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LEAST_SIDE = 96  # pixels, least width of a picture; smaller ones are enlarged by a whole number
GAP = 4
TEXT = 13  # height of letters
INK, PAPER = (32, 32, 32), (255, 255, 255)


def enlarged(pictures: np.ndarray) -> np.ndarray:
  """Repeats every pixel of [..., H, W, C], so that small pictures can be seen."""
  zoom = math.ceil(LEAST_SIDE / pictures.shape[-2])
  return pictures.repeat(zoom, axis=-3).repeat(zoom, axis=-2)


def sheet(
  rows: Sequence[np.ndarray],
  names: Sequence[str] = (),
  captions: Sequence[Sequence[str]] = (),
  heads: Sequence[str] = (),
) -> np.ndarray:
  """Draws rows of pictures with words.

  Args:
    rows: uint8 [N, H, W, C] each; N may differ.
    names: text left of every row.
    captions: text below every picture.
    heads: text above every column.

  Returns:
    uint8 [height, width, 3].
  """
  rows = [enlarged(row) for row in rows]
  font = ImageFont.load_default(TEXT)
  height, width = rows[0].shape[1:3]
  line = TEXT + 2 * GAP
  left = max((math.ceil(font.getlength(name)) + 2 * GAP for name in names), default=GAP)
  top = line if heads else GAP
  pitch = height + GAP + (line if captions else 0), width + GAP
  size = left + max(map(len, rows)) * pitch[1], top + len(rows) * pitch[0]
  paper = Image.new('RGB', size, PAPER)
  pen = ImageDraw.Draw(paper)
  write = lambda x, y, text, anchor: pen.text((x, y), text, INK, font, anchor)
  for column, head in enumerate(heads):
    write(left + column * pitch[1] + width // 2, top // 2, head, 'mm')
  for i, row in enumerate(rows):
    y = top + i * pitch[0]
    if names:
      write(left - GAP, y + height // 2, names[i], 'rm')
    for j, picture in enumerate(row):
      x = left + j * pitch[1]
      grey = picture.shape[-1] == 1
      paper.paste(Image.fromarray(picture[..., 0] if grey else picture), (x, y))
      if captions:
        write(x + width // 2, y + height + GAP + line // 2 - 2, captions[i][j], 'mm')
  return np.asarray(paper)


def numbered(pictures: np.ndarray, numbers: Sequence[int], columns: int) -> np.ndarray:
  """Draws pictures [N, H, W, C] with their numbers below, `columns` side by side."""
  starts = range(0, len(pictures), columns)
  words = [[str(number) for number in numbers[i : i + columns]] for i in starts]
  return sheet([pictures[i : i + columns] for i in starts], captions=words)


def there_and_back(frames: np.ndarray) -> np.ndarray:
  """Appends the frames [T, ...] in reverse, so that they repeat without a jump."""
  return np.concatenate([frames, frames[-2:0:-1]])
