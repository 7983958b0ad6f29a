"""Distances between two sets of feature vectors [N, D]: pure functions, float64."""

import numpy as np

NEIGHBOURS = 3  # of the manifold of precision and recall


def frechet(a: np.ndarray, b: np.ndarray) -> float:
  """Computes the squared Frechet distance of the Gaussians with the sets' means and covariances.

  Heusel et al. (2017), equation 6. It is biased upwards; the bias grows as vectors become fewer.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  difference = a.mean(0) - b.mean(0)
  one, two = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
  # tr sqrt(one two) by the symmetric sqrt(one) two sqrt(one), which has the same eigenvalues.
  values, vectors = np.linalg.eigh(one)
  root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
  inner = np.linalg.eigvalsh(root @ two @ root)
  traces = np.trace(one) + np.trace(two) - 2 * np.sqrt(np.maximum(inner, 0)).sum()
  return float(difference @ difference + traces)


def kernel(a: np.ndarray, b: np.ndarray) -> float:
  """Estimates the squared maximum mean discrepancy without bias, with a cubic kernel.

  Binkowski et al. (2018), section 3. It may be below 0 for sets of the same distribution.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  similarity = lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3
  within = lambda x: (similarity(x, x).sum() - np.trace(similarity(x, x))) / (len(x) * (len(x) - 1))
  return float(within(a) + within(b) - 2 * similarity(a, b).mean())


def precision_recall(true: np.ndarray, made: np.ndarray) -> tuple[float, float]:
  """Returns the share of `made` within the manifold of `true`, and the reverse.

  Kynkaanniemi et al. (2019). The manifold is the union of balls around the vectors, each of which
  reaches the vector's third neighbour.
  """
  true, made = np.asarray(true, np.float64), np.asarray(made, np.float64)
  return _covered(true, made), _covered(made, true)


def _covered(centres: np.ndarray, points: np.ndarray) -> float:
  """Returns the share of points in the manifold of the centres."""
  own = np.sort(_squared(centres, centres), axis=1)
  radii = own[:, min(NEIGHBOURS, len(centres) - 1)]  # the first is the vector itself
  return float((_squared(points, centres) <= radii).any(1).mean())


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Computes squared distances between vectors [N, D] and [M, D]: [N, M]."""
  return np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T, 0)


def sliced_wasserstein(a: np.ndarray, b: np.ndarray, slices: int = 256, seed: int = 0) -> float:
  """Computes the mean 1-Wasserstein distance along random directions; sizes may differ."""
  rng = np.random.default_rng(seed)
  directions = rng.standard_normal((a.shape[1], slices))
  directions /= np.linalg.norm(directions, axis=0)
  levels = (np.arange(512) + 0.5) / 512
  one, two = (np.quantile(np.asarray(x, np.float64) @ directions, levels, axis=0) for x in (a, b))
  return float(np.abs(one - two).mean())


def inception_score(probabilities: np.ndarray) -> float:
  """Returns exp of the mean KL of class probabilities [N, K] from their mean.

  Salimans et al. (2016).
  """
  p = np.maximum(np.asarray(probabilities, np.float64), 1e-12)
  return float(np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean()))
