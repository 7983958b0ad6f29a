"""Every system on one, two and four real processes of four fake devices in all: the same run."""

import importlib
import pathlib

import pytest

from tests.launch.test_processes import values
from tests.support.processes import Job
from tests.support.recorded import read_order
from tests.support.tiny import SYSTEMS

pytestmark = [pytest.mark.slow, pytest.mark.launch]
ROOT = pathlib.Path(__file__).resolve().parents[2]
# Numbers of processes, one after another. Restoring is the same for every system: in one of them
# every count reads the checkpoint of every other one.
COUNTS = dict.fromkeys(SYSTEMS, (4, 2)) | {'vdvae': (1, 2, 4, 1, 4, 2, 1)}


def config_of(system: str) -> tuple[str, str]:
  """The first demo that a system has: the config to give, and the data set."""
  for path in sorted((ROOT / 'configs').glob('demo_*.py')):
    module = importlib.import_module(f'configs.{path.stem}')
    if system in module.DIFFERENCES:
      config = module.get_config(f'{system},debug')
      return f'configs/{path.name}:{system},debug', config.data.name
  raise AssertionError(f'no demo has {system}')


def chain(folder: pathlib.Path, root, config: str, counts: tuple[int, ...], each: int) -> None:
  """Goes `each` steps further on each number of processes in turn."""
  flags = (
    f'--config={config}',
    '--config.train.log_every=1',
    f'--config.train.save_every={each}',
    f'--config.evals.elbo.every={each}',
    f'--workdir={folder / "run"}',
  )
  for i, num in enumerate(counts, 1):
    more = f'--config.train.num_steps={i * each}'
    job = Job(
      folder / f'start-{i}', root, num, 4, '-m', 'tests.support.recorded', folder, *flags, more
    )
    assert job.wait(600, 1200) == [0] * num, job.text()
    assert i == 1 or f'resumed at step {(i - 1) * each} ' in job.logs[0].read_text(), job.text()


@pytest.fixture(scope='module', params=SYSTEMS)
def runs(request, tmp_path_factory):
  """One chain of changing numbers of processes, and as many steps on one."""
  from data_prep import build

  config, name = config_of(request.param)
  root = tmp_path_factory.mktemp('data')
  build.build(name, root)
  pieces, whole = (tmp_path_factory.mktemp(request.param) for _ in range(2))
  counts = COUNTS[request.param]
  chain(pieces, root, config, counts, 1)
  chain(whole, root, config, (1,), len(counts))
  return pieces, whole


@pytest.fixture
def system(request) -> str:
  return request.node.callspec.params['runs']


@pytest.fixture
def last(system) -> int:
  """The last step."""
  return len(COUNTS[system])


def test_losses_are_those_of_one_process(runs, last):
  pieces, whole = (values(folder, 'train/loss') for folder in runs)
  assert set(whole) == set(range(1, last + 1))
  # Sums over devices may be added in another order.
  assert pieces == pytest.approx(whole, rel=1e-6)


def test_order_of_the_data_goes_on(runs, last):
  pieces, whole = map(read_order, runs)
  assert list(whole) == list(range(1, last + 1)) and pieces == whole
  rows = [row for step in whole.values() for row in step.values()]
  assert len(set(rows)) == len(rows)  # shares do not overlap


def test_evaluations_count_every_example_once(runs, system, last):
  # A bound, or an error for a system without one.
  score = 'elbo/mse' if system == 'slot_attention' else 'elbo/neg_elbo'
  counts = [values(folder, 'elbo/num_examples') for folder in runs]
  scores = [values(folder, score) for folder in runs]
  assert set(counts[0]) == set(range(1, last + 1)) and set(counts[0].values()) == {counts[1][last]}
  assert scores[0][last] == pytest.approx(scores[1][last], rel=1e-6)
