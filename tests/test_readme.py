"""What the README names is there."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
TEXT = (ROOT / 'README.md').read_text()


def test_files_named_exist():
  names = set(re.findall(r'(?:configs|launch|hvae_tpu|data_prep|tests)/[\w/.-]*\w', TEXT))
  assert len(names) > 15
  cache = {'hvae_tpu/jax'}  # in the home directory
  missing = [name for name in names - cache if not (ROOT / name).exists()]
  assert not missing


def test_nothing_is_left_to_fill_in():
  assert '@@' not in TEXT and 'TODO' not in TEXT


def test_modules_named_exist():
  for name in re.findall(r'python -m ((?:hvae_tpu|data_prep)[\w.]*)', TEXT):
    assert (ROOT / name.replace('.', '/')).with_suffix('.py').exists(), name
