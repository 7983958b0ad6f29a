"""Numbered samples to choose from. A seed and a number always give the same picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.generation import programs
from hvae_tpu.nn.distributions import Latents


def candidates(
  model: Any,
  params: Any,
  state: Any,
  numbers: Sequence[int],
  *,
  temperature: Any = 1.0,
  seed: int = 0,
) -> tuple[Latents, np.ndarray]:
  """Draws samples by their numbers.

  Args:
    model, params, state: as `hvae_tpu.load` returns them.
    numbers: numbers of the samples, from 1 on; each has its own noise.
    temperature: one number or one per level.
    seed: seed of all noise.

  Returns:
    The latents of the samples, with leading [N], and their pictures, uint8 [N, H, W, C].
  """
  shapes = programs.shapes(model, params, state)
  noise = programs.stacked([programs.draw(shapes, seed, number) for number in numbers])
  return programs.generate(model, params, state, noise, np.float32(temperature), seed)


def read_choice(text: str, count: int) -> tuple[int, ...]:
  """Reads numbers as a person types them, '3 7' or '3,7'.

  Raises:
    UserError: one is no number from 1 to `count`.
  """
  words = text.replace(',', ' ').split()
  return check_numbers(
    [int(word) if word.isdecimal() else word for word in words], count, 'the choice'
  )


def check_numbers(numbers: Sequence[Any], count: int, key: str) -> tuple[int, ...]:
  """Returns the numbers if they are different numbers from 1 to `count`; errors name `key`.

  Raises:
    UserError: a number that no candidate has, or one that is given twice.
  """
  for place, number in enumerate(numbers):
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= count:
      raise UserError(f'{key} has {number!r}; the candidates have the numbers 1 to {count}')
    if number in numbers[:place]:
      raise UserError(f'{key} has {number} twice; give each candidate once')
  return tuple(numbers)
