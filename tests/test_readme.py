"""Names in the README: files, modules, modes and options that exist."""

import pathlib
import re

from configs.systems import trainer
from hvae_tpu.modes import MODES

ROOT = pathlib.Path(__file__).resolve().parents[1]
TEXT = (ROOT / 'README.md').read_text()


def test_files_named_exist():
  names = set(re.findall(r'(?:configs|launch|hvae_tpu|data_prep|tests)/[\w/.-]*\w', TEXT))
  assert len(names) > 15
  cache = {'hvae_tpu/jax', 'hvae_tpu/plan', 'hvae_tpu/data'}  # in the home directory
  missing = [name for name in names - cache if not (ROOT / name).exists()]
  assert not missing


def test_nothing_is_left_to_fill_in():
  assert '@@' not in TEXT and 'TODO' not in TEXT


def test_modules_named_exist():
  for name in re.findall(r'python -m ((?:hvae_tpu|data_prep)[\w.]*)', TEXT):
    module = ROOT / name.replace('.', '/')
    assert module.with_suffix('.py').exists() or (module / '__main__.py').exists(), name


def test_modes_are_those_of_the_program():
  """Train is what happens without a mode."""
  assert set(re.findall(r'--mode=(\w+)', TEXT)) == set(MODES) - {'train'}


def test_options_of_modes_exist():
  """In tables of modes, whose fields stand in the last column."""
  base, count = trainer.base(), 0
  for mode, options in re.findall(r'^\| `(\w+)` \| .* \| ([^|]*`[^|]*) \|$', TEXT, re.M):
    if mode in MODES:
      fields = re.findall(r'`(\w+)`', re.sub(r'\(.*?\)', '', options))
      count += len(fields)
      missing = [field for field in fields if field not in base[mode]]
      assert fields and not missing, (mode, missing)
  assert count > 50


def test_what_modes_write_can_be_reset():
  writing = {name for name, mode in MODES.items() if name in mode.FOLDERS}
  assert set(MODES) - writing == {'reset', 'replay', 'config'}
