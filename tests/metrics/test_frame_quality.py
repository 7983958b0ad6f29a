"""SSIM, PSNR and their moments: against another program, by the formula, and worked by hand."""

import numpy as np
import pytest
from skimage import metrics

from hvae_tpu.metrics import frame_quality, score_curves


def test_scores_equal_the_library_and_the_formula():
  rng = np.random.default_rng(0)
  true, predicted = (
    rng.random((2, 3, 16, 16, 3), np.float32),
    rng.random((3, 16, 16, 3), np.float32),
  )
  ssim = frame_quality.similarity(true, predicted, 2.0)
  psnr = frame_quality.peak_ratio(true, predicted, 1.0)
  assert ssim.shape == psnr.shape == (2, 3)
  for i, j in np.ndindex(2, 3):
    each = [
      metrics.structural_similarity(
        true[i, j, ..., c].astype(float), predicted[j, ..., c].astype(float), data_range=2.0
      )
      for c in range(3)
    ]
    assert ssim[i, j] == pytest.approx(np.mean(each), abs=1e-9)
    mse = np.square(true[i, j] - predicted[j], dtype=np.float64).mean((0, 1))
    assert psnr[i, j] == pytest.approx(np.mean(-10 * np.log10(mse)), abs=1e-5)


def test_moments_leave_infinite_scores_out():
  scores = np.array([[1.0, 2.0, np.inf, np.nan], [3.0, np.inf, np.inf, 1.0]])
  moments = score_curves.moments(scores, axis=0)
  np.testing.assert_array_equal(moments.mean, [2, 2, np.nan, np.nan])
  np.testing.assert_array_equal(moments.deviation, [1, 0, np.nan, np.nan])
  np.testing.assert_array_equal(moments.left_out, [0, 1, 2, 0])
  whole = score_curves.moments(scores[:, :3])
  assert (whole.mean, whole.left_out) == (2, 3)
  assert whole.deviation == pytest.approx(np.std([1, 2, 3]))
