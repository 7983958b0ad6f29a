"""Temperatures as configs write them."""

import types

import numpy as np
import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.nn import temperatures
from tests.support import tiny

THREE = types.SimpleNamespace(level_names=('a', 'b', 'c'))


@pytest.mark.parametrize(
  ('setting', 'expected'),
  [
    (0.7, [0.7, 0.7, 0.7]),
    (1, [1, 1, 1]),
    ((1.0, 0.5, 0), [1, 0.5, 0]),
    ('linear(0.6,0.9)', [0.6, 0.7, 0.8]),
    ('linear( 1., 0.4 )', [1, 0.8, 0.6]),
  ],
)
def test_settings(setting, expected):
  values = temperatures.per_level(THREE, setting, 't')
  assert values.dtype == np.float32
  np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_a_model_may_say_what_a_ramp_is():
  """Efficient-VDVAE: the blocks of one level of its lists share their temperature."""
  model = tiny.SYSTEMS['efficient_vdvae'].model
  values = temperatures.per_level(model, 'linear(0.6,0.9)', 't')
  np.testing.assert_allclose(values, [0.6, 0.6, 0.7, 0.8], rtol=1e-6)


@pytest.mark.parametrize(
  ('setting', 'message'),
  [
    ((1.0, 0.5), 't has 2 numbers; the model has 3 levels and needs one for each'),
    ('linear(0.7)', "t='linear(0.7)' is not a ramp; write it as 'linear(0.7,0.9)'"),
    ('linear(a,b)', "t='linear(a,b)' is not a ramp"),
    ('cosine(0.7,0.9)', 'is not a ramp'),
    (-0.1, 't=-0.1 must have finite numbers, not below 0'),
    ((1.0, float('nan'), 1.0), 'must have finite numbers, not below 0'),
    ((1.0, '1', 1.0), "t has '1'; expected a number"),
    (True, 't has True; expected a number'),
  ],
  ids=str,
)
def test_refused(setting, message):
  with pytest.raises(UserError) as caught:
    temperatures.per_level(THREE, setting, 't')
  assert message in str(caught.value)
