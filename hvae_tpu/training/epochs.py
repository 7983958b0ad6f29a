"""Length of training in epochs, turned into steps once the size of the data set is known."""

from typing import Any


def resolve(config: Any, size: int) -> str:
  """Sets the fields that count steps from those that count epochs.

  `train.num_epochs` decides `train.num_steps`, and `train.save_epochs` decides `train.save_every`.
  Where schedules count epochs, the last examples of an epoch that fill no batch are not counted,
  and `steps_per_epoch` is set. Elsewhere batches go across the borders of epochs.

  Args:
    config: changed in place; without such fields it stays as it is.
    size: examples of the training view.

  Returns:
    A sentence that tells the length, '' if the config stays as it is.
  """
  train = config.train
  lengths = {key: train[key] for key in ('num_epochs', 'save_epochs') if train[key] is not None}
  if not lengths:
    return ''
  per_epoch = max(size // train.batch_size, 1)
  model_counts = 'steps_per_epoch' in config.model
  whole_epochs = model_counts or config.optimizer.schedule == 'cosine_epochs'
  if model_counts:
    config.model.steps_per_epoch = per_epoch
  if whole_epochs:
    config.optimizer.steps_per_epoch = per_epoch
  for key, steps in (('num_epochs', 'num_steps'), ('save_epochs', 'save_every')):
    if key in lengths:
      across = -(-lengths[key] * size // train.batch_size)
      train[steps] = lengths[key] * per_epoch if whole_epochs else across
  length = ', '.join(f'train.{key}={value}' for key, value in lengths.items())
  return (
    f'{length} of {size:,} examples in batches of {train.batch_size}: '
    f'train.num_steps={train.num_steps:,}, train.save_every={train.save_every:,}'
  )
