"""Comparisons of two sets of pictures, each with the name of its features."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from hvae_tpu.metrics import classifier, distances, patches, random_features

BATCH = 100


class Measure(NamedTuple):
  """Feature extractor of pictures, and the scores of two sets of its vectors.

  Attributes:
    features: name of the extractor, which stands beside every number.
    extract: uint8 [N, H, W, C] -> [N, D].
    scores: name of a number -> function of two sets of vectors, true and made.
  """

  features: str
  extract: Callable[[np.ndarray], np.ndarray]
  scores: dict[str, Callable[[np.ndarray, np.ndarray], float]]


SCORES = {
  'frechet': distances.frechet,
  'kernel': distances.kernel,
  'precision': lambda true, made: distances.precision_recall(true, made)[0],
  'recall': lambda true, made: distances.precision_recall(true, made)[1],
}


def measures(images: np.ndarray, labels: np.ndarray | None = None) -> list[Measure]:
  """Returns all measures that need no download.

  Args:
    images: training pictures, uint8 [N, H, W, C].
    labels: their classes [N], if there are any: then a classifier is trained on them.
  """
  results = [Measure(random_features.NAME, batched(random_features.features), SCORES)]
  if labels is not None:
    classify = classifier.train(images, labels)
    results.append(Measure(classifier.NAME, batched(lambda x: classify(x)[0]), SCORES))
  wasserstein = {'sliced_wasserstein': distances.sliced_wasserstein}
  return [*results, Measure(patches.NAME, patches.patches, wasserstein)]


def compare(measure: Measure, true: np.ndarray, made: np.ndarray) -> dict[str, float]:
  """Computes numbers by name, `frechet[random-conv-v1]`, of two sets of uint8 [N, H, W, C]."""
  vectors = measure.extract(true), measure.extract(made)
  return {f'{name}[{measure.features}]': f(*vectors) for name, f in measure.scores.items()}


def batched(extract: Callable[[Any], Any]) -> Callable[[np.ndarray], np.ndarray]:
  """Returns the extractor for any number of pictures, jitted as one program."""
  program = jax.jit(extract)

  def run(images: np.ndarray) -> np.ndarray:
    features = []
    for start in range(0, len(images), BATCH):
      rows = np.minimum(np.arange(start, start + BATCH), len(images) - 1)
      features.append(np.asarray(program(images[rows])))
    return np.concatenate(features)[: len(images)]

  return run
