"""Measurement of the host's time for a step."""

import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.planning.benchmarks import scaling


@pytest.mark.slow
def test_every_part_is_measured(debug_config, tmp_path, capsys):
  debug_config.model.update(enc_blocks='32d32,1x1', dec_blocks='1x1,32m1')
  times = scaling.measure(debug_config, tmp_path, 3)
  parts = dict(input=3, dispatch=3, compute=3, log=3, save=1, write=1)
  assert {name: len(seconds) for name, seconds in times.items()} == parts
  assert all(0 < second < 60 for seconds in times.values() for second in seconds)
  assert (tmp_path / 'checkpoints' / '4').is_dir()
  scaling.report(times, print)
  with pytest.raises(UserError, match='has checkpoints already; give a new folder'):
    scaling.measure(debug_config, tmp_path, 3)
  text = capsys.readouterr().out
  assert text.startswith('1 processes, 8 devices') and all(f'  {part} ' in text for part in parts)
