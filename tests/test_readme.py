"""Names in the README: files, modules, modes and options that exist."""

import pathlib
import re

from configs.systems import trainer
from hvae_tpu import commands
from hvae_tpu.modes import MODES, show_config

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
  """Compares the modes; train is the default mode."""
  assert set(re.findall(r'--mode=(\w+)', TEXT)) == set(MODES) - {'train'}


def test_keys_named_exist():
  """Reads the keys after `--config.`, of the configs of a picture, a video and an object system."""
  keys = {'a.b'}  # the example of the guide
  for name in ('demo_mnist.py:nvae', 'demo_moving_mnist.py:cwvae', 'demo_tetrominoes.py'):
    keys |= set(show_config.flatten(commands.load_config(f'configs/{name}').to_dict()))
  missing = {key for key in re.findall(r'--config\.([\w.]*\w)', TEXT) if key not in keys}
  assert not missing


def test_options_of_modes_are_complete():
  """Reads tables of modes (last column), lists after `config.<mode>.*:`, and single options."""
  named = re.findall(r'^\| `(\w+)` \| .* \| ([^|]*`[^|]*) \|$', TEXT, re.M)
  named += re.findall(r'`config\.(\w+)\.\*`:((?:[^.]|\.\w)*)', TEXT)
  fields = {mode: set() for mode in MODES}
  for mode, options in named:
    if mode in MODES:
      fields[mode] |= set(re.findall(r'`(\w+)`', re.sub(r'\([^()]*\)', '', options)))
  for mode in ('replay', 'reset'):
    fields[mode] |= set(re.findall(rf'--config\.{mode}\.(\w+)', TEXT))
  base = trainer.base()
  for mode, module in MODES.items():
    if hasattr(module, 'Options'):
      assert fields[mode] == set(base[mode]), mode


def test_what_modes_write_can_be_reset():
  writing = {name for name, mode in MODES.items() if name in mode.FOLDERS}
  assert set(MODES) - writing == {'reset', 'replay', 'config'}
