"""Features of a small classifier, its last layer but one, trained where a data set has labels."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp
import numpy as np
import optax

NAME = 'classifier-on-train'
STEPS = 300
BATCH = 64
FEATURES = 48


class Classifier(nn.Module):
  """Network from uint8 pictures [B, H, W, C] to features [B, 48] and logits [B, num_classes]."""

  num_classes: int

  @nn.compact
  def __call__(self, images: Array) -> tuple[Array, Array]:
    x = images.astype(jnp.float32) / 127.5 - 1
    for width in (16, 32, 48):
      x = nn.relu(nn.Conv(width, (3, 3), strides=2)(x))
    features = nn.Dense(FEATURES)(nn.relu(x.reshape(len(x), -1)))
    return features, nn.Dense(self.num_classes)(nn.relu(features))


def train(images: np.ndarray, labels: np.ndarray, seed: int = 0) -> Callable[[Array], Any]:
  """Trains on pictures [N, H, W, C] and their classes [N]; cross-entropy, Adam, fixed steps.

  Returns:
    The function of pictures to (features [B, 48], logits).
  """
  model, tx = Classifier(int(labels.max()) + 1), optax.adam(1e-3)
  params = model.init(jax.random.key(seed), images[:1])
  labels = labels.astype(np.int32)

  def loss(params, x, y):
    losses = optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x)[1], y)
    return losses.mean()

  @jax.jit
  def step(params, moments, x, y):
    updates, moments = tx.update(jax.grad(loss)(params, x, y), moments)
    return optax.apply_updates(params, updates), moments

  moments, rng = tx.init(params), np.random.default_rng(seed)
  for _ in range(STEPS):
    rows = rng.integers(0, len(images), BATCH)
    params, moments = step(params, moments, images[rows], labels[rows])
  return lambda x: model.apply(params, x)
