"""Rows and colours of slots."""

import numpy as np

from hvae_tpu.figures import images, slot_pictures


def test_rows_have_frames():
  row = images.framed_row(np.ones((2, 3, 4, 1)))
  assert row.shape == (7, 14, 1) and row.sum() == 24
  assert row[2:5, 2:6].all() and row[2:5, 8:12].all()


def test_colours_of_slots():
  colours = slot_pictures.colours(3)
  np.testing.assert_allclose(colours, np.eye(3), atol=1e-6)
  masks = np.array([1.0, 0.5, 0.5]).reshape(3, 1, 1)
  np.testing.assert_allclose(slot_pictures.coloured(masks)[0, 0], [1, 0.5, 0.5])
