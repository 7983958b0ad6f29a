"""Sections of every run: their values are checked before anything is compiled or written."""

import math

import pytest

from configs import demo_mnist
from configs.systems import SYSTEMS
from hvae_tpu import settings
from hvae_tpu.errors import UserError
from hvae_tpu.training.config import SECTIONS, check_config


@pytest.mark.parametrize('system', SYSTEMS)
def test_defaults_of_systems_are_allowed(system):
  config = SYSTEMS[system].base()
  check_config(config)
  for name, section in SECTIONS.items():
    assert set(config[name]) == set(settings.defaults(section)), name


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('seed', -1, 'config.seed=-1 must be at least 0 and below 4,294,967,296'),
    ('data.cache_mb', -1, 'config.data.cache_mb=-1 must not be negative'),
    ('data.require.variant', 3, 'config.data.require.variant=3 must be a string'),
    (
      'data.fields',
      ('image', 3),
      "config.data.fields=('image', 3) must be a tuple, each item a",
    ),
    ('mesh.fsdp', -2, 'config.mesh.fsdp=-2 must be at least -1'),
    ('train.batch_size', 0, 'config.train.batch_size=0 must be at least 1'),
    ('train.num_epochs', 0, 'config.train.num_epochs=0 must be at least 1'),
    ('train.clock', 'wall', "config.train.clock='wall' must be one of 'attempted', 'applied'"),
    ('train.precision', 'low', "config.train.precision='low' must be one of 'default', 'high'"),
    ('train.skip_threshold', 0.0, 'config.train.skip_threshold=0.0 must be positive'),
    ('train.skip_threshold', math.nan, 'config.train.skip_threshold must be a number, not NaN'),
    ('train.ema_decay', 1.0, 'config.train.ema_decay=1.0 must be at least 0 and below 1'),
    ('train.log_every', 0, 'config.train.log_every=0 must be at least 1'),
    ('train.keep_latest', 0, 'config.train.keep_latest=0 must be at least 1'),
    ('train.heartbeat_seconds', 0, 'config.train.heartbeat_seconds=0 must be at least 1'),
    ('optimizer.learning_rate', math.inf, 'config.optimizer.learning_rate=inf must be finite'),
    ('evals.ssim.every', math.nan, 'config.evals.ssim.every must be a number, not NaN'),
    ('sample.temperatures', (1.0, math.nan), 'config.sample.temperatures[1] must be a number'),
  ],
  ids=str,
)
def test_values_that_are_not_allowed(key, value, message):
  config = demo_mnist.get_config('vdvae,debug')
  *sections, field = key.split('.')
  section = config
  for name in sections:
    section = section[name]
  with section.ignore_type():
    section[field] = value
  with pytest.raises(UserError) as caught:
    check_config(config)
  assert message in str(caught.value)


def test_every_wrong_value_of_a_section_is_named():
  config = demo_mnist.get_config('vdvae,debug')
  config.train.update(save_every=-1, keep_every=-1)
  with pytest.raises(UserError, match=r'train.save_every=-1 .*; config.train.keep_every=-1'):
    check_config(config)
