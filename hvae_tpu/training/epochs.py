"""A length of training in epochs, turned into steps once the size of the data set is known."""

from collections.abc import Callable
from typing import Any

from hvae_tpu.errors import UserError


def resolve(config: Any, size: int, say: Callable[[str], None]) -> None:
  """Sets the fields that count steps from those that count epochs.

  `train.num_epochs` decides `train.num_steps`, and `train.save_epochs` decides `train.save_every`.
  A system whose schedules count epochs (`steps_per_epoch`, which is set too) has whole epochs: what
  is left of one and fills no batch is not counted. Elsewhere batches go across their borders.

  Args:
    config: changed in place; without such fields it stays as it is.
    size: examples of the training view.

  Raises:
    UserError: a number of epochs below 1.
  """
  train = config.train
  wanted = {key: train[key] for key in ('num_epochs', 'save_epochs') if train[key] is not None}
  for key, value in wanted.items():
    if value < 1:
      raise UserError(
        f'config.train.{key}={value} must be at least 1, or None to count in steps instead'
      )
  if not wanted:
    return
  per_epoch = max(size // train.batch_size, 1)
  counting = [
    section for section in (config.model, config.optimizer) if 'steps_per_epoch' in section
  ]
  for section in counting:
    section.steps_per_epoch = per_epoch
  for key, steps in (('num_epochs', 'num_steps'), ('save_epochs', 'save_every')):
    if key in wanted:
      across = -(-wanted[key] * size // train.batch_size)
      train[steps] = wanted[key] * per_epoch if counting else across
  length = ', '.join(f'train.{key}={value}' for key, value in wanted.items())
  say(
    f'{length} of {size:,} examples in batches of {train.batch_size}: '
    f'train.num_steps={train.num_steps:,}, train.save_every={train.save_every:,}'
  )
