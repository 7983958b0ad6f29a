"""SSIM and PSNR of predicted frames, frame by frame, as scikit-image computes them.

Frames are float32 in [0, 1]; predictions may leave it, and are not clipped.
"""

import numpy as np

from hvae_tpu.errors import UserError


def similarity(true: np.ndarray, predicted: np.ndarray, data_range: float) -> np.ndarray:
  """Computes the SSIM (Wang et al., 2004) of frames [..., H, W, C], mean over channels: [...].

  7x7 uniform windows, sample covariance, without a border of 3 pixels, in float64.

  Args:
    data_range: L of the formula. The reference has 2, the default of its library for floats,
      although pixels lie in [0, 1]. Its values are higher than those of 1.
  """
  metrics = _scikit_image()

  def measure_frame(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return metrics.structural_similarity(x, y, data_range=data_range, channel_axis=-1)

  return _per_frame(measure_frame, true, predicted)


def peak_ratio(true: np.ndarray, predicted: np.ndarray, data_range: float) -> np.ndarray:
  """Computes the PSNR of frames [..., H, W, C], dB, mean over channels: [...]; inf if equal."""
  metrics = _scikit_image()

  def measure_frame(x, y):
    channels = range(x.shape[-1])
    with np.errstate(divide='ignore'):
      ratio = metrics.peak_signal_noise_ratio
      return np.mean([ratio(x[..., c], y[..., c], data_range=data_range) for c in channels])

  return _per_frame(measure_frame, true, predicted)


def _per_frame(measure, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """Applies `measure` to each pair of frames; leading axes are broadcast."""
  lead = np.broadcast_shapes(true.shape[:-3], predicted.shape[:-3])
  pairs = [
    np.broadcast_to(frames, (*lead, *frames.shape[-3:])).reshape(-1, *frames.shape[-3:])
    for frames in (true, predicted)
  ]
  return np.array([measure(x, y) for x, y in zip(*pairs, strict=True)]).reshape(lead)


def _scikit_image():
  """Imports scikit-image where it is needed: it is slow, and only video needs it."""
  try:
    from skimage import metrics
  except ImportError as error:
    raise UserError(
      "SSIM and PSNR of videos need scikit-image; run: pip install -e '.[video]'"
    ) from error
  return metrics
