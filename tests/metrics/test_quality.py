"""Sample quality: hand-worked distances, and numbers that grow with the defects of pictures."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from hvae_tpu import metrics
from hvae_tpu.errors import UserError
from hvae_tpu.metrics import classifier, distances, patches, random_features
from hvae_tpu.modes import MODES
from tests.support import trained_runs


def test_frechet_of_known_gaussians():
  """Points at +-s have variance s^2 n/(n-1): the distance is (mean)^2 + (s - t)^2 n/(n-1)."""
  points = lambda s, mean: np.stack([np.tile([s, -s], 4) + mean, np.repeat([s, -s], 4)], 1)
  a, b = points(1.0, 0.0), points(3.0, 2.0)
  np.testing.assert_allclose(distances.frechet(a, b), 2.0**2 + 2 * (3 - 1) ** 2 * 8 / 7)
  assert abs(distances.frechet(a, a)) < 1e-6


def test_kernel_by_loops():
  a, b = np.random.default_rng(0).standard_normal((2, 5, 3))
  k = lambda x, y: (x @ y / 3 + 1) ** 3
  pairs = [(i, j) for i in range(5) for j in range(5)]
  mean = lambda x, y, keep: np.mean([k(x[i], y[j]) for i, j in pairs if keep(i, j)])
  others = lambda i, j: i != j
  expected = mean(a, a, others) + mean(b, b, others) - 2 * mean(a, b, lambda i, j: True)
  np.testing.assert_allclose(distances.kernel(a, b), expected)


def test_precision_and_recall_on_a_line():
  """Balls reach the third neighbour: 3 to both sides of the ends, 2 in the middle."""
  true = np.arange(5.0)[:, None]
  assert distances.precision_recall(true, true) == (1, 1)
  assert distances.precision_recall(true, true + 5.5)[0] == 0.2 + 0.2  # 5.5 and 6.5 of ball 4
  made = np.full((5, 1), 2.0)
  assert distances.precision_recall(true, made) == (1, 0.2)  # its balls are points


def test_sliced_wasserstein_of_a_shift():
  a = np.random.default_rng(0).standard_normal((100, 1))
  np.testing.assert_allclose(distances.sliced_wasserstein(a, a + 0.5), 0.5, rtol=1e-6)


def pictures(count: int, seed: int) -> np.ndarray:
  """Bars at random places, uint8 [count, 16, 16, 1]."""
  rng = np.random.default_rng(seed)
  bars = np.zeros((count, 16, 16, 1), np.uint8)
  for picture, (row, column) in zip(bars, rng.integers(0, 12, (count, 2)), strict=True):
    picture[row : row + 4, column // 2 : column // 2 + 8] = 255
  return bars


def test_distances_grow_with_noise():
  train, test = pictures(120, 0), pictures(60, 1)
  rng = np.random.default_rng(2)
  noise = lambda s: np.clip(test + rng.normal(0, s, test.shape), 0, 255).astype(np.uint8)
  rows = [test, noise(30), noise(90), rng.integers(0, 256, test.shape).astype(np.uint8)]
  for measure in metrics.measures(train):
    scores = [metrics.compare(measure, train, made) for made in rows]
    for name in scores[0]:
      values = [row[name] for row in scores]
      assert measure.features in name
      if 'frechet' in name or 'kernel' in name or 'sliced' in name:
        assert values == sorted(values) and values[-1] > 3 * abs(values[0]), (name, values)
      else:
        assert values[-1] < values[0], (name, values)


def test_features_are_fixed():
  """A changed number needs a changed name."""
  features = np.asarray(random_features.features(jnp.asarray(pictures(2, 0))))
  assert features.shape == (2, 64) and random_features.NAME == 'random-conv-v1'
  again = np.asarray(random_features.features(jnp.asarray(pictures(2, 0))))
  np.testing.assert_array_equal(features, again)
  assert np.abs(features[0] - features[1]).max() > 0


def test_patches_are_of_the_pictures():
  vectors = patches.patches(np.full((2, 9, 8, 3), 255, np.uint8))
  assert vectors.shape == (32, 147) and (vectors == 1).all()


@pytest.mark.slow
def test_the_classifier_learns(monkeypatch):
  monkeypatch.setattr(classifier, 'STEPS', 60)
  images, labels = pictures(200, 0), np.arange(200) % 2
  images[labels == 1] = images[labels == 1].swapaxes(1, 2)
  classify = classifier.train(images[:150], labels[:150])
  features, logits = classify(images[150:])
  assert features.shape == (50, classifier.FEATURES)
  assert (logits.argmax(-1) == labels[150:]).mean() > 0.9


@pytest.mark.slow
def test_the_mode(data_root, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(classifier, 'STEPS', 5)
  config, workdir = trained_runs.config_of('vdvae'), tmp_path / 'run'
  trained_runs.save(workdir, config)
  config.quality.update(num=20, num_true=64)
  assert MODES['quality'].run(config, workdir, 'latest') == 0
  record = json.loads((workdir / 'quality' / '1-ema.json').read_text())
  assert record['pictures'] == {'train': 64, 'test': 64, 'samples': 20}
  assert set(record['results']) == {'samples to train', 'samples to test', 'test to train'}
  names = set(record['results']['test to train'])
  assert 'frechet[random-conv-v1]' in names and 'precision[classifier-on-train]' in names
  assert all('[' in name for name in names)  # no number without its features
  random = 'frechet[random-conv-v1]'
  worse, best = (record['results'][k][random] for k in ('samples to train', 'test to train'))
  assert worse > best and random in capsys.readouterr().out
  config.quality.num = 3
  with pytest.raises(UserError, match='config.quality.num=3 must be at least 8'):
    MODES['quality'].run(config, workdir, 'latest')
