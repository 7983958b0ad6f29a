"""Tables of configs: parameter counts, and the smallest slice that each config fits."""

import dataclasses
import math

import pytest

from configs import cifar10
from hvae_tpu import commands
from hvae_tpu.errors import UserError
from hvae_tpu.planning import chips, config_tables, planner
from tests.planning.test_plan import GIB, SETTINGS, plan


def test_table_of_configs():
  config = commands.load_config('configs/cifar10.py:efficient_vdvae,c1')
  assert config_tables.parameter_count(config) == 18_124_020
  for name, message in (('configs/none.py', 'is no file'), ('configs/cifar10.py:cwvae', 'cwvae')):
    with pytest.raises(UserError, match=message):
      commands.load_config(name)


def test_smallest_slice_is_the_first_that_fits(monkeypatch):
  """Slices with more devices than examples, or with too little memory, are skipped."""
  config = cifar10.get_config('vdvae,debug')
  peaks, tried = {'v5e:1x1': 20 * GIB, 'v5e:2x2': 9 * GIB}, []
  count = lambda topology: math.prod(map(int, topology[4:].split('x')))

  def make_plan(config, topology, programs):
    tried.append(topology)
    if topology not in peaks:
      raise UserError('config.train.batch_size=8 must be a positive multiple of the 16 devices')
    train = dataclasses.replace(plan(peaks[topology]).analyses['train'], devices=count(topology))
    return plan(0)._replace(topology=topology, settings=SETTINGS, analyses={'train': train})

  monkeypatch.setattr(planner, 'make_plan', make_plan)
  monkeypatch.setattr(chips, 'describe', lambda topology: [None] * count(topology))
  row = config_tables._smallest_slice(
    'configs/cifar10.py', config, ['v5e:1x1', 'v5e:4x4', 'v5e:2x2']
  )
  assert row.startswith('| `configs/cifar10.py` | v5e:2x2 | 8 | 2 | blocks | 9.0 |')
  assert tried == ['v5e:1x1', 'v5e:4x4', 'v5e:2x2']
  peaks['v5e:2x2'] = 17 * GIB
  row = config_tables._smallest_slice('configs/cifar10.py', config, ['v5e:1x1', 'v5e:2x2'])
  assert '| none of these | 8 |' in row and '> 17.0' in row
  tried.clear()
  peaks |= {'v5e:1x1': 80 * GIB, 'v5e:2x4': 10 * GIB}  # 20 GiB on each of four, as it seems
  row = config_tables._smallest_slice(
    'configs/cifar10.py', config, ['v5e:1x1', 'v5e:2x2', 'v5e:2x4']
  )
  assert tried == ['v5e:1x1', 'v5e:2x4'] and '| v5e:2x4 | 8 | 1 |' in row


def test_slices_of_the_table_are_checked_first():
  with pytest.raises(UserError, match="--slices=v5e:2x2,v9:1x1: 'v9:1x1' must be chip:shape"):
    next(config_tables._slice_rows({}, ['v5e:2x2', 'v9:1x1']))
