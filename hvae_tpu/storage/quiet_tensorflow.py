"""TensorFlow, for event files and for its own checkpoints, without its greetings."""

import os
from types import ModuleType


def load() -> ModuleType:
  """Imports the module `tensorflow`, which takes seconds.

  Raises:
    ImportError: it is not installed.
  """
  # Both keep its greetings out of the terminal (2: errors only). JAX read the first one when it was
  # imported, and does not know the second.
  os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'
  os.environ['TF_ENABLE_ONEDNN_OPTS'] = '0'
  import tensorflow as tf

  # A TensorFlow built for GPUs would otherwise take the memory that the model needs.
  tf.config.set_visible_devices([], 'GPU')
  return tf
