"""Curves: names that would be written over each other."""

from hvae_tpu.figures import plots


def test_names_of_points_that_almost_touch_stand_together():
  points = [(0.0, 0.0, 'a'), (0.3, 0.5, 'b'), (0.4, 5.0, 'c'), (10.0, 10.0, 'd')]
  joined = plots._apart(points)
  assert joined == [(0.0, 0.0, 'a, b'), (0.4, 5.0, 'c'), (10.0, 10.0, 'd')]
  assert plots._apart([(1.0, 2.0, 'a'), (1.0, 2.0, 'b')]) == [(1.0, 2.0, 'a, b')]
