"""Variations of one group of latent variables: its noise changes, all other noise stays.

Later groups keep their noise, but their distributions follow the changed group.
Reference: exploration script of mgp123/nvae (deviation 0.4; all positions, or one by one).
"""

from typing import Any

import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.generation import programs

NOISE_STD = 0.4


def vary(
  model: Any,
  params: Any,
  state: Any,
  group: int,
  *,
  rows: int = 1,
  num: int = 7,
  noise_std: float = NOISE_STD,
  temperature: Any = 1.0,
  position: tuple[int, int] | None = None,
  seed: int = 0,
) -> np.ndarray:
  """Draws samples, and variations of each sample.

  Args:
    model, params, state: as `hvae_tpu.load` returns them.
    group: number of the group with new noise; 0 is the coarsest.
    rows: number of samples.
    num: number of variations of each sample.
    noise_std: standard deviation of the group's new noise; the prior's is 1.
    temperature: one number or one per level; multiplies the noise of the samples.
    position: (row, column) in the group's map with new noise; None: all positions.
    seed: seed of all noise. Sample r is the same for any group.

  Returns:
    uint8 [rows, 1 + num, H, W, C].

  Raises:
    UserError: the model has no such group, or the group no such position.
  """
  shapes, where = _place(model, params, state, group, position)
  noises = []
  for row in range(rows):
    base = _base(shapes, temperature, seed, row)
    noises.append(base)
    for number in range(1, 1 + num):
      fresh = noise_std * programs.draw(shapes, seed, row, number)[group]
      noises.append(_changed(base, group, where, fresh))
  _, pictures = programs.generate(model, params, state, programs.stacked(noises), seed=seed)
  return pictures.reshape(rows, 1 + num, *pictures.shape[1:])


def sweep(
  model: Any,
  params: Any,
  state: Any,
  group: int,
  *,
  noise_std: float = NOISE_STD,
  temperature: Any = 1.0,
  seed: int = 0,
) -> np.ndarray:
  """Varies one sample: draws new noise of a group at one position after the other.

  The arguments are the same as for `vary`.

  Returns:
    uint8 [h, w, H, W, C], by position in the group's map.
  """
  shapes, _ = _place(model, params, state, group, None)
  base, (height, width, _) = _base(shapes, temperature, seed, 0), shapes[group]
  fresh = noise_std * programs.draw(shapes, seed, 0, 1)[group]
  places = [(i, j) for i in range(height) for j in range(width)]
  noise = programs.stacked([_changed(base, group, place, fresh) for place in places])
  _, pictures = programs.generate(model, params, state, noise, seed=seed)
  return pictures.reshape(height, width, *pictures.shape[1:])


def differences(pictures: np.ndarray) -> np.ndarray:
  """Replaces variations by their differences from the sample: 128 (grey) is no difference."""
  base = pictures[:, :1].astype(np.int16)
  signed = np.clip(pictures.astype(np.int16) - base + 128, 0, 255).astype(np.uint8)
  return np.concatenate([pictures[:, :1], signed[:, 1:]], axis=1)


def _place(
  model: Any, params: Any, state: Any, group: int, position: tuple[int, int] | None
) -> tuple[tuple[tuple[int, int, int], ...], Any]:
  """Returns the shapes of all groups, and an index of the positions in this group."""
  programs.check_group(model, group, 'group')
  shapes = programs.shapes(model, params, state)
  if position is None:
    return shapes, ...
  height, width, _ = shapes[group]
  if not (0 <= position[0] < height and 0 <= position[1] < width):
    raise UserError(
      f'position {tuple(position)} lies outside of group {group}, which is {height} x {width}; '
      f'give a row below {height} and a column below {width}'
    )
  return shapes, tuple(position)


def _base(shapes: Any, temperature: Any, *seed: int) -> programs.Noise:
  scales = np.broadcast_to(np.asarray(temperature, np.float32), (len(shapes),))
  return tuple(t * n for t, n in zip(scales, programs.draw(shapes, *seed, 0), strict=True))


def _changed(base: programs.Noise, group: int, where: Any, fresh: np.ndarray) -> programs.Noise:
  noise = base[group].copy()
  noise[where] = fresh[where]
  return (*base[:group], noise, *base[group + 1 :])
