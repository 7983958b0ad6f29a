"""SSIM against a case worked by hand, and against another program."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from hvae_tpu.metrics import ssim


def test_ssim_of_flat_pictures():
  """Far from the border only the means count: (2 a b + c) / (a^2 + b^2 + c), c = 2.55^2."""
  a, b = (np.full((1, 41, 41, 1), shade, np.uint8) for shade in (100, 150))
  moments = 2 * 100 * 150 + 2.55**2, 100**2 + 150**2 + 2.55**2
  values = ssim._blurred(np.float32(a))
  np.testing.assert_allclose(values[0, 5:-5, 5:-5], 100, rtol=1e-5)
  # The border of 5 pixels sees black beside the picture, the same share of it in both.
  inner = moments[0] / moments[1]
  assert inner - 0.05 < float(ssim.similarity(a, b)[0]) < inner + 0.05
  assert float(ssim.similarity(a, a)[0]) == pytest.approx(1, abs=1e-5)


def test_ssim_against_scikit_image():
  """Puts pictures in a black frame, since scikit-image reflects at the border."""
  rng = np.random.default_rng(0)
  a = rng.integers(0, 256, (2, 12, 16, 3)).astype(np.uint8)
  b = np.clip(a + rng.integers(-60, 60, a.shape), 0, 255).astype(np.uint8)
  for x, y, score in zip(a, b, ssim.similarity(a, b), strict=True):
    framed = (np.pad(v, ((10, 10), (10, 10), (0, 0))).astype(float) for v in (x, y))
    _, values = structural_similarity(
      *framed,
      data_range=255,
      channel_axis=-1,
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
      full=True,
    )
    assert float(score) == pytest.approx(values[10:-10, 10:-10].mean(), abs=1e-5)
  np.testing.assert_allclose(ssim.similarity(a, a), 1, rtol=1e-5)
