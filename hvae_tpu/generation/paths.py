"""Interpolation between the latents of two pictures, and exchange of their groups.

Every group is given, so nothing is drawn from the prior (mgp123/nvae, interpolation script).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.generation import programs
from hvae_tpu.nn.distributions import Group, Latents


def interpolate(
  model: Any,
  params: Any,
  state: Any,
  images: np.ndarray,
  *,
  num: int = 8,
  path: str = 'spherical',
  seed: int = 0,
) -> np.ndarray:
  """Decodes points on a path between the latents of two pictures.

  Args:
    model, params, state: as `hvae_tpu.load` returns them.
    images: the two pictures, uint8 [2, H, W, C].
    num: number of points between the two ends.
    path: 'linear', or 'spherical' (along the great circle of every group).
    seed: seed of the draws from the posterior and of the pixels.

  Returns:
    uint8 [num + 2, H, W, C]; the first and the last are the reconstructions of `images`.

  Raises:
    UserError: an unknown path.
  """
  if path not in PATHS:
    raise UserError(f'path {path!r} must be one of {", ".join(PATHS)}')
  groups = programs.encode(model, params, state, images, seed)
  shares = np.linspace(0, 1, num + 2, dtype=np.float32)
  latents = tuple(_with_z(np.stack([PATHS[path](*group.z, a) for a in shares])) for group in groups)
  return programs.decode(model, params, state, latents, seed)


def combine(
  model: Any, params: Any, state: Any, images: np.ndarray, *, seed: int = 0
) -> np.ndarray:
  """Decodes coarse groups of one picture with fine groups of the other, at every cut.

  The arguments are the same as for `interpolate`.

  Returns:
    uint8 [2, L + 1, H, W, C]: [0, k] has the first k groups of the first picture and the others of
    the second; [1, k] the reverse.
  """
  groups = programs.encode(model, params, state, images, seed)
  cuts = range(len(groups) + 1)
  take = lambda group, level: _with_z(
    np.stack([group.z[first if level < k else 1 - first] for first in (0, 1) for k in cuts])
  )
  latents: Latents = tuple(take(group, level) for level, group in enumerate(groups))
  pictures = programs.decode(model, params, state, latents, seed)
  return pictures.reshape(2, len(cuts), *pictures.shape[1:])


def _with_z(z: np.ndarray) -> Group:
  return Group(None, None, z)


def _linear(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
  return (1 - share) * a + share * b


def _spherical(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
  """Returns a point on the arc between a and b (slerp; Shoemake, 1985)."""
  lengths = np.linalg.norm(a) * np.linalg.norm(b)
  angle = np.arccos(np.clip((a * b).sum() / max(lengths, 1e-12), -1, 1))
  if np.sin(angle) < 1e-4:  # (anti)parallel: the arc is a line, or not unique
    return _linear(a, b, share)
  return (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)


PATHS: dict[str, Callable[..., np.ndarray]] = {'linear': _linear, 'spherical': _spherical}
