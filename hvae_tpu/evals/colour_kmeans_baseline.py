"""Segmentation of scenes by the colours of their pixels alone, by k-means."""

from collections.abc import Callable, Iterator
from typing import Any

from jax import Array
import numpy as np

from hvae_tpu.evals import averaging, segmentation
from hvae_tpu.metrics.rand_index import adjusted_rand_index

NEEDS = ('num_slots',)
ROUNDS = 20


def make(model: Any, batches: Callable[..., Iterator]) -> Callable[..., dict[str, float]]:
  """Returns a baseline that needs no training: as many clusters as the model has slots.

  Returns:
    `run(params, model_state, step, rng)`: `ari` (foreground) and `ari_all`, means over a view.

  Raises:
    UserError: on use, where the records have no `segmentation`.
  """

  def run(params: Any, model_state: Any, step: Array, rng: Array) -> dict[str, float]:
    scores = []
    for batch in averaging.on_host(map(segmentation.scene_fields, batches()), ahead=1):
      for image, owners in zip(
        batch['image'][batch['mask']], batch['segmentation'][batch['mask']], strict=True
      ):
        parts = clusters(image.reshape(-1, 3).astype(np.float32), model.num_slots)
        scores.append([adjusted_rand_index(owners, parts, only) for only in (True, False)])
    ari, everywhere = np.mean(scores, axis=0)
    return {'ari': ari, 'ari_all': everywhere, 'num_examples': len(scores)}

  return run


def clusters(points: np.ndarray, count: int) -> np.ndarray:
  """Returns the number of the cluster of each point [N, C], int [N], by k-means.

  The first centre is the mean, each further one the point that is farthest from those before. So
  nothing is random, and the result is a function of the points.
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
  """Computes squared distances, [N, K]."""
  return np.square(points[:, None] - centres).sum(-1)
