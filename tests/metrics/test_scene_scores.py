"""Scores of segmentations and representations: by hand, and against other programs."""

from hypothesis import given, settings, strategies
import numpy as np
import pytest
from sklearn import metrics

from hvae_tpu.errors import UserError
from hvae_tpu.metrics import dci, matching
from hvae_tpu.metrics.rand_index import adjusted_rand_index


@settings(max_examples=30, deadline=None)
@given(seed=strategies.integers(0, 2**16), parts=strategies.integers(1, 5))
def test_rand_index_equals_scikit_learn(seed, parts):
  rng = np.random.default_rng(seed)
  true, predicted = rng.integers(0, parts, 60), rng.integers(0, 4, 60)
  ours = adjusted_rand_index(true, predicted, False, convention='zero_denominator_is_one')
  assert ours == pytest.approx(metrics.adjusted_rand_score(true, predicted), abs=1e-9)


@pytest.mark.parametrize(
  ('true', 'predicted', 'expected'),
  [
    ([0, 0, 1, 1, 2, 2], [3, 3, 0, 0, 1, 1], 1.0),
    ([0, 0, 1, 1, 2, 2], [0, 1, 0, 0, 1, 1], 1.0),  # the background may lie anywhere
    ([0, 0, 1, 1, 1, 1], [0, 0, 2, 2, 2, 2], 1.0),  # one object in one slot
    ([0, 0, 1, 1, 1, 1], [0, 0, 2, 2, 3, 3], 0.0),  # one object in two
    ([0, 0, 1, 2, 3, 4], [0, 0, 0, 1, 2, 3], 0.0),  # objects of one pixel: 0 / 0
    ([0, 0, 0, 0, 0, 0], [0, 1, 2, 0, 1, 2], 0.0),  # no object
  ],
)
def test_rand_index_of_the_foreground(true, predicted, expected):
  assert adjusted_rand_index(np.array(true), np.array(predicted)) == expected


def test_rand_index_by_other_conventions():
  single = np.array([1, 2, 3, 4])
  assert adjusted_rand_index(single, single, convention='zero_denominator_is_one') == 1
  assert adjusted_rand_index(single, single, convention='constant_is_one') == 0
  ones = np.ones(4, int)
  assert adjusted_rand_index(ones, ones, convention='constant_is_one') == 1
  half = np.array([1, 1, 2, 2])
  assert adjusted_rand_index(half, np.array([1, 2, 1, 2])) == pytest.approx(-0.5)


def test_objects_are_matched_with_their_slots():
  true = np.zeros((20, 20), int)
  true[:10, :10], true[10:, :10], true[15:, 15:] = 1, 2, 3  # the third has 25 pixels
  predicted = np.full((20, 20), 3)
  predicted[:10, :10], predicted[10:, :10] = 2, 0
  predicted[:2, :10] = 1
  matches = matching.match(true, predicted, 3, 4)
  assert matches.objects.tolist() == [1, 2] and matches.slots.tolist() == [2, 0]


def test_texture_scores_by_hand():
  true = np.array([[0, 0], [1, 1]])
  image = np.zeros((2, 2, 3))
  perfect = matching.texture_scores(true, 1 - true, 3, image, image + 0.5)
  assert perfect == pytest.approx(
    dict(mse_sum=3, acc=1, miou=1, miou_fg=1, miou_gt=1, dice=1, dice_fg=1, ari=1, ari_fg=1)
  )
  merged = matching.texture_scores(true, np.zeros((2, 2), int), 3, image, image)
  # One slot holds all: half of it overlaps with one of two parts, the other one is missed.
  assert merged['acc'] == 0 and merged['miou'] == 0.25 and merged['miou_gt'] == 0.25
  assert merged['dice'] == pytest.approx(1 / 3)


def test_dci_of_codes_that_are_factors():
  rng = np.random.default_rng(0)
  factors = rng.integers(0, 3, (200, 2)).astype(float)
  codes = np.stack([factors[:, 1], rng.standard_normal(200), factors[:, 0]], axis=1)
  held_out = np.arange(200) >= 100
  importance, scores = dci.evaluate(codes, factors, (True, True), held_out)
  np.testing.assert_allclose(importance, [[0, 1], [0, 0], [1, 0]], atol=0.02)
  assert min(scores) > 0.95
  with pytest.raises(UserError, match='must be one of per_factor, reference'):
    dci.evaluate(codes, factors, (True, True), held_out, 'both')
