"""Strips of frames, films side by side, and GIF files."""

import io

import numpy as np
from PIL import Image
import pytest

from hvae_tpu.figures import film_strips
from hvae_tpu.figures.films import encode_gif, side_by_side


@pytest.mark.parametrize(('length', 'lines'), [(1, 1), (49, 1), (50, 1), (51, 2), (100, 2)])
def test_strips_lose_no_frame(length, lines):
  frames = np.arange(1, length + 1, dtype=np.uint8)[:, None, None, None] * np.ones((4, 3, 1), 'u1')
  picture = film_strips.strips(frames)
  width = min(length, 50)
  assert picture.shape == (4 * lines, 4 * width - 1, 1)
  shown = [picture[4 * (i // 50), 4 * (i % 50), 0] for i in range(length)]
  assert shown == list(range(1, length + 1))
  assert not picture[:, 3::4].any()
  strict = film_strips.strips(frames, strict_reference=True)
  assert len(strict) == 4 * max(lines - 1, 1)


def test_films_are_shown_side_by_side():
  films = np.zeros((2, 3, 4, 5, 1), np.uint8)
  films[1] = 9
  frames = side_by_side(films)
  assert frames.shape == (3, 4, 10, 1) and (frames[:, :, 5:] == 9).all()
  assert encode_gif(frames, 10).startswith(b'GIF8')


def test_animations_have_all_frames():
  frames = np.random.default_rng(0).integers(0, 256, (8, 12, 10, 3)).astype(np.uint8)
  image = Image.open(io.BytesIO(encode_gif(frames, 4.0)))
  assert (image.n_frames, image.size, image.info['duration']) == (8, (10, 12), 250)
