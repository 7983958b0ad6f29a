"""Fixtures of all tests: JAX on eight fake CPU devices, a data set, and a cloud."""

import gc
import os
import subprocess
import sys

from absl import flags
import jax
import pytest

CACHE = os.path.expanduser('~/.cache/hvae_tpu/jax')

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_compilation_cache_dir', os.environ.get('JAX_COMPILATION_CACHE_DIR', CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()  # Grain reads flags


def pytest_configure(config):
  """Makes all checks of golden files part of a run that names such a file, and no marks."""
  from tests.support import golden_files

  options = config.getini('addopts')
  is_default = config.option.markexpr == options[options.index('-m') + 1]
  if is_default and any('test_golden_' in argument for argument in config.args):
    golden_files.ask_for_all()


@pytest.fixture(scope='module', autouse=True)
def released():
  """Frees the programs of a file after it: thousands use up memory, and mappings of memory."""
  yield
  jax.clear_caches()
  gc.collect()


@pytest.fixture(scope='session')
def data_root(tmp_path_factory):
  """Folder with the data set `demo_mnist`; also `$HVAE_DATA` until the session ends."""
  from data_prep import build

  root = tmp_path_factory.mktemp('data')
  build.build('demo_mnist', root)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('HVAE_DATA', str(root))
    yield root


@pytest.fixture
def debug_config(data_root):
  """A fresh `configs/demo_mnist.py:vdvae,debug`, whose data set is there."""
  from configs import demo_mnist

  return demo_mnist.get_config('vdvae,debug')


@pytest.fixture
def command(monkeypatch, capsys, data_root):
  """(flags) -> (exit code, stdout, stderr) of the command, run in this process."""
  from hvae_tpu import main

  def run(*arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    for name in [name for name in flags.FLAGS if name.startswith('config.')]:
      delattr(flags.FLAGS, name)  # each call defines the overrides that it finds
    flags.FLAGS.unparse_flags()
    argv = ['hvae_tpu', *map(str, arguments)]
    monkeypatch.setattr(sys, 'argv', argv)  # overrides are looked for there
    cache = jax.config.jax_compilation_cache_dir
    try:
      code = main.main(argv)
    finally:
      jax.config.update('jax_compilation_cache_dir', cache)
      flags.FLAGS.mark_as_parsed()
      for flag in ('mode', 'workdir', 'checkpoint', 'config', 'coordinator'):
        flags.FLAGS[flag].unparse()
    return code, *capsys.readouterr()

  return run


@pytest.fixture
def cloud(tmp_path):
  """Fake cloud for launch/tpu_pod.sh; the trainings in it end with the test."""
  from tests.support.tpu_pod import Cloud

  fake = Cloud(tmp_path / 'cloud')
  yield fake
  for pid in fake.folder.glob('workers/*/hvae_run/pid'):
    subprocess.run(['kill', '-9', pid.read_text().strip()], check=False, stderr=subprocess.DEVNULL)
