"""What colours alone tell about objects: the pixels of each scene, clustered."""

from collections.abc import Callable, Iterator
from typing import Any

from jax import Array
import numpy as np

from hvae_tpu.devices import sharding
from hvae_tpu.evals import segmentation
from hvae_tpu.metrics.rand_index import adjusted_rand_index

NEEDS = ('num_slots',)
ROUNDS = 20


def make(model: Any, batches: Callable[..., Iterator]) -> Callable[..., dict[str, float]]:
  """A baseline that needs no training: as many clusters of colours as the model has slots.

  Returns:
    `run(params, model_state, step, rng)`: `ari` (foreground) and `ari_all`, means over a view.

  Raises:
    UserError: on use, where the records have no `segmentation`.
  """

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, float]:
    scores = []
    for batch in batches():
      segmentation.require_masks(batch)
      batch = sharding.to_host(batch)
      for image, owners in zip(
        batch['image'][batch['mask']], batch['segmentation'][batch['mask']], strict=True
      ):
        found = clusters(image.reshape(-1, 3).astype(np.float32), model.num_slots)
        scores.append([adjusted_rand_index(owners, found, only) for only in (True, False)])
    ari, everywhere = np.mean(scores, axis=0)
    return {'ari': ari, 'ari_all': everywhere, 'num_examples': len(scores)}

  return run


def clusters(points: np.ndarray, count: int) -> np.ndarray:
  """k-means: the number of the cluster of each point [N, C], int [N].

  The first centre is the mean, each further one the point that is farthest from those before: no
  draws, so that the result is a function of the points.
  """
  centres = points.mean(0, keepdims=True)
  for _ in range(count - 1):
    farthest = points[_distances(points, centres).min(1).argmax()]
    centres = np.concatenate([centres, farthest[None]])
  for _ in range(ROUNDS):
    nearest = _distances(points, centres).argmin(1)
    for i in np.unique(nearest):
      centres[i] = points[nearest == i].mean(0)
  return _distances(points, centres).argmin(1)


def _distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
  """Squared, [N, K]."""
  return np.square(points[:, None] - centres).sum(-1)
