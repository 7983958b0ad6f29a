"""Modes on two processes of two fake devices write the files of one process of four devices."""

import csv
import pathlib
import shutil

import numpy as np
from PIL import Image
import pytest

from tests.support import trained_runs
from tests.support.processes import ROOT, Job

pytestmark = [pytest.mark.slow, pytest.mark.launch]
MODES = 'div_stats,reconstruct,encode,decode,sample'
FLAGS = (
  '--config=configs/demo_mnist.py:efficient_vdvae,debug',
  *(f'--config.model.{k}={v}' for k, v in trained_runs.FIELDS['efficient_vdvae'].items()),
  '--config.evals.batch_size=60',  # the last batch of the test view is filled up
  '--config.div_stats.share=0.05',
  '--config.reconstruct.quantiles=(1.0,0.5)',
  '--config.encode.quantile=0.5',
  '--config.encode.num=70',
  '--config.decode.keep=2',
  '--config.sample.num=3',  # fewer than devices
  '--config.sample.num_partial=1',
)


@pytest.fixture(scope='module')
def folders(data_root, tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path]:
  """Work directories with the same weights, written by one process and by two."""
  one, two = (tmp_path_factory.mktemp('modes') for _ in range(2))
  trained_runs.save(one / 'run', trained_runs.config_of('efficient_vdvae'))
  shutil.copytree(one / 'run', two / 'run')
  for num, folder in ((1, one), (2, two)):
    script = str(ROOT / 'tests' / 'support' / 'mode_by_mode.py')
    command = (script, MODES, *FLAGS, f'--workdir={folder / "run"}')
    job = Job(folder, data_root, num, 4, *command)
    assert job.wait() == [0] * num, job.text()
  return one / 'run', two / 'run'


def written(workdir: pathlib.Path) -> list[pathlib.Path]:
  """Lists the files that the modes wrote, relative to the work directory."""
  return sorted(
    path.relative_to(workdir)
    for mode in MODES.split(',')
    for path in (workdir / mode).rglob('*')
    if path.is_file()
  )


def test_the_same_files(folders):
  one, two = map(written, folders)
  assert one == two and {path.parts[0] for path in one} == set(MODES.split(','))


@pytest.mark.parametrize('suffix', ['.npz', '.png', '.csv'])
def test_the_same_contents(folders, suffix):
  """Compares pictures bit for bit; sums over devices may be added in another order."""
  read = {
    '.npz': lambda path: dict(np.load(path)),
    '.png': lambda path: {'picture': np.asarray(Image.open(path))},
    '.csv': lambda path: {'table': np.array(list(csv.reader(path.open()))[1:], float)},
  }[suffix]
  paths = [path for path in written(folders[0]) if path.suffix == suffix]
  assert paths
  for path in paths:
    one, two = (read(folder / path) for folder in folders)
    assert one.keys() == two.keys()
    for name, expected in one.items():
      if expected.dtype.kind == 'f':
        np.testing.assert_allclose(two[name], expected, rtol=1e-5, atol=1e-6, err_msg=f'{path}')
      else:
        np.testing.assert_array_equal(two[name], expected, err_msg=f'{path} {name}')


def test_one_process_tells(folders):
  logs = folders[1].parent
  assert 'stored in' in (logs / '2-0.txt').read_text()
  assert 'stored in' not in (logs / '2-1.txt').read_text()
