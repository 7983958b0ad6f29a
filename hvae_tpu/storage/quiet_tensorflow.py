"""TensorFlow, which writes event files and reads its own checkpoints, without greetings."""

import os
from types import ModuleType


def load() -> ModuleType:
  """The module `tensorflow`, imported when it is needed: that takes seconds.

  Raises:
    ImportError: it is not installed.
  """
  # Both keep its greetings out of the terminal (2: errors only); jax, which has read the first one
  # when it was imported, does not know the second.
  os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'
  os.environ['TF_ENABLE_ONEDNN_OPTS'] = '0'
  import tensorflow as tf

  # A TensorFlow built for GPUs would otherwise take the memory that the model needs.
  tf.config.set_visible_devices([], 'GPU')
  return tf
