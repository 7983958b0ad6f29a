"""Builds that are killed, run out of disk, or use several processes."""

from collections.abc import Callable
from pathlib import Path
import resource
import signal
import subprocess
import sys
import time

import pytest

from tests.support import raw_files
from tests.support.built_sets import files_of
from tests.support.killed_build import PER_SHARD, SIZE

ROOT = Path(__file__).resolve().parents[2]
SHARDS = 6
SLOW_TWO = pytest.param(2, marks=pytest.mark.slow)  # two processes, which take seconds to spawn


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
  """Folder of pictures; each takes some hundredths of a second to prepare."""
  folder = tmp_path_factory.mktemp('raw')
  for seed in range(3):
    data = raw_files.encoded(raw_files.pictures(1, 600, seed=seed)[0])
    for i in range(PER_SHARD * SHARDS // 3):
      (folder / f'{i:02d}_{seed}.png').write_bytes(data)
  return folder


def start(raw, out, jobs, moment='never', prepare: Callable[[], None] | None = None):
  options = [f'--raw={raw}', f'--out={out}', f'--jobs={jobs}', f'--variant=size={SIZE}']
  return subprocess.Popen(
    [sys.executable, '-m', 'tests.support.killed_build', moment, 'image_folder', *options],
    cwd=ROOT,
    preexec_fn=prepare,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process):
  out, error = process.communicate(timeout=60)
  assert process.returncode == 0, error
  return out


def wait_until(condition, process=None):
  deadline = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < deadline
    assert process is None or process.poll() is None, process.communicate()
    time.sleep(0.002)


def is_alive(pid: int) -> bool:
  """Returns whether a process runs; False for a zombie."""
  try:
    return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
  except OSError:
    return False


def children_of(parent: int) -> list[int]:
  children = []
  for path in Path('/proc').glob('[0-9]*/stat'):
    try:
      if int(path.read_text().rpartition(')')[2].split()[1]) == parent:
        children.append(int(path.parent.name))
    except OSError:
      continue  # it has just ended
  return children


@pytest.fixture(scope='module')
def whole(raw, tmp_path_factory):
  """Files of an undisturbed build."""
  out = tmp_path_factory.mktemp('whole')
  finish(start(raw, out, jobs=1))
  files = files_of(out / 'image_folder')
  assert sum('array_record' in name for name in files) == SHARDS
  return files


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_number_of_processes(raw, whole, tmp_path):
  finish(start(raw, tmp_path, jobs=3))
  assert files_of(tmp_path / 'image_folder') == whole


@pytest.mark.parametrize(
  ('moment', 'jobs'),
  [
    ('between', 2),
    pytest.param('card', 1, marks=pytest.mark.slow),
    pytest.param('between', 1, marks=pytest.mark.slow),
    pytest.param('card', 2, marks=pytest.mark.slow),
  ],
)
def test_killed_build_goes_on(raw, whole, tmp_path, moment, jobs):
  killed = start(raw, tmp_path, jobs, moment)
  killed.communicate(timeout=60)
  assert killed.returncode == -signal.SIGKILL
  assert not (tmp_path / 'image_folder').exists()
  (partial,) = tmp_path.iterdir()
  finished = [path for path in partial.glob('*array_record*') if '.part' not in path.name]
  assert len(finished) >= (2 if moment == 'between' else SHARDS)
  times = {path.name: path.stat().st_mtime_ns for path in finished}

  assert 'written to' in finish(start(raw, tmp_path, jobs))
  assert files_of(tmp_path / 'image_folder') == whole
  assert [path.name for path in tmp_path.iterdir()] == ['image_folder']
  for name, written in times.items():  # not written again
    assert (tmp_path / 'image_folder' / name).stat().st_mtime_ns == written


@pytest.mark.parametrize('jobs', [1, SLOW_TWO])
def test_build_killed_within_a_shard_goes_on_and_leaves_no_process(raw, whole, tmp_path, jobs):
  killed = start(raw, tmp_path, jobs)
  wait_until(lambda: list(tmp_path.glob('image_folder.tmp-*/*.part-*')), killed)
  workers = children_of(killed.pid)
  assert len(workers) >= (jobs if jobs > 1 else 0)
  killed.kill()
  killed.communicate()
  assert not (tmp_path / 'image_folder').exists()
  again = start(raw, tmp_path, jobs)  # while the workers may still run
  finish(again)
  assert files_of(tmp_path / 'image_folder') == whole
  assert [path.name for path in tmp_path.iterdir()] == ['image_folder']
  wait_until(lambda: not any(map(is_alive, workers)))


def test_interrupted_build_keeps_finished_shards(raw, whole, tmp_path):
  # Background processes ignore the signal, and their children inherit that.
  heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
  stopped = start(raw, tmp_path, 1, 'interrupt', prepare=heed)
  _, error = stopped.communicate(timeout=30)
  assert stopped.returncode == 130, error
  assert error == 'data_prep.build: stopped; finished shards are kept, run it again\n'
  assert not list(tmp_path.glob('*/*.part*'))


@pytest.mark.parametrize('jobs', [1, SLOW_TWO])
def test_full_disk_is_one_sentence(raw, whole, tmp_path, jobs):
  """Simulates a full disk by a limit on the size of files."""
  smallest = min(len(data) for name, data in whole.items() if 'array_record' in name)
  limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (smallest // 2, smallest // 2))
  full = start(raw, tmp_path, jobs, prepare=limit)
  _, error = full.communicate(timeout=60)
  assert full.returncode == 2
  assert error.count('\n') == 1, error
  assert f'cannot write {tmp_path / "image_folder"}' in error
  assert 'free some space or choose another place with --out=DIR' in error
  assert not list(tmp_path.rglob('*'))
  finish(start(raw, tmp_path, jobs))
  assert files_of(tmp_path / 'image_folder') == whole
