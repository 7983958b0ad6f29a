"""Temperatures as a config writes them: a number, one per level, or `linear(a,b)`."""

import re
from typing import Any

import numpy as np

from hvae_tpu.errors import UserError

Setting = float | str | tuple[float, ...]
_RAMP = re.compile(r'linear\(([^,()]+),([^,()]+)\)')


def per_level(model: Any, setting: Setting, key: str) -> np.ndarray:
  """Returns the temperatures of a model's levels, float32 [L].

  Args:
    model: has `level_names`, and may have `temperature_ramp` for 'linear(a,b)'. Without it, the
      temperature changes in equal steps from level to level.
    setting: a number for all levels; a tuple of one per level; or the text 'linear(a,b)', from a at
      the coarsest level towards b, which is not reached (as in Efficient-VDVAE's settings).
    key: name of the setting in errors.

  Raises:
    UserError: the setting is none of the three, of another length, or has a number below 0.
  """
  levels = len(model.level_names)
  if isinstance(setting, str):
    start, stop = _ends(setting, key)
    if hasattr(model, 'temperature_ramp'):
      values = np.asarray(model.temperature_ramp(start, stop), np.float32)
    else:
      values = np.linspace(start, stop, levels, endpoint=False, dtype=np.float32)
  elif isinstance(setting, tuple | list):
    if len(setting) != levels:
      raise UserError(
        f'{key} has {len(setting)} numbers; the model has {levels} levels and needs one for each'
      )
    values = np.array([_number(value, key) for value in setting], np.float32)
  else:
    values = np.full(levels, _number(setting, key), np.float32)
  if not (np.isfinite(values).all() and (values >= 0).all()):
    raise UserError(f'{key}={setting!r} must have finite numbers, not below 0; 0 is the mean')
  return values


def per_level_from_tuple(model: Any, setting: tuple, key: str) -> np.ndarray:
  """Returns `per_level` of a tuple; a tuple of one holds one setting for all levels."""
  setting = tuple(setting)
  return per_level(model, setting[0] if len(setting) == 1 else setting, key)


def _ends(text: str, key: str) -> tuple[float, float]:
  match = _RAMP.fullmatch(text.replace(' ', ''))
  try:
    return float(match[1]), float(match[2])
  except (TypeError, ValueError) as error:
    raise UserError(
      f"{key}={text!r} is not a ramp; write it as 'linear(0.7,0.9)', or give a number"
    ) from error


def _number(value: Any, key: str) -> float:
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise UserError(
      f"{key} has {value!r}; expected a number, a tuple of one per level, or 'linear(0.7,0.9)'"
    )
  return float(value)
