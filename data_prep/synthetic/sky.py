"""Clouds: a flat horizontal pattern, seen from below."""

import numpy as np

from data_prep.synthetic.noise import fractal_noise

_SIDE = 64  # cells of the pattern, which repeats
_SCALE = 16  # cells between straight up and a slope of one
_LIFT = 0.25  # limits how fast rows near the horizon run through the pattern


def draw_clouds(rng: np.random.Generator) -> np.ndarray:
  """Draws the thickness of the clouds, 0 to 1: float32 [64, 64], periodic."""
  return np.clip(fractal_noise(rng, _SIDE, 4, 4) * 4 - 1.8, 0, 1).astype(np.float32)


def overhead(
  clouds: np.ndarray, ray_x: np.ndarray, ray_y: np.ndarray, up: np.ndarray
) -> np.ndarray:
  """Samples the clouds along rising rays; the clouds are so high that walking has no effect.

  Args:
    clouds: from `draw_clouds`.
    ray_x, ray_y: directions of the columns in the plane, [T, W].
    up: slopes of the rows, [H], not negative.

  Returns:
    Thickness, float32 [T, H, W].
  """
  reach = (_SCALE / (up + _LIFT))[:, np.newaxis]
  row, column = (
    np.floor(ray[:, np.newaxis] * reach).astype(np.int64) % _SIDE for ray in (ray_y, ray_x)
  )
  return clouds[row, column]
