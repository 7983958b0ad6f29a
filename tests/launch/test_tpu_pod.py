"""launch/tpu_pod.sh against a cloud that is a folder; see fake_cloud.py."""

import os
import shutil
import signal
import subprocess

import pytest

from tests.support import fake_cloud
from tests.support.tpu_pod import FLAGS, ROOT, WORKDIR

pytestmark = pytest.mark.launch


def test_from_nothing_to_the_end(cloud):
  code, text = cloud.run('run', *FLAGS)
  assert code == 0, text
  assert f'finished: step 8 in {WORKDIR}' in text and 'costs money until' in text
  assert cloud.calls('create') == [
    'compute tpus tpu-vm create pod --accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite '
    '--zone=here-a --quiet'
  ]
  for worker in (0, 1):
    flags = ' '.join(('-u -m hvae_tpu.main --coordinator=auto', f'--workdir={WORKDIR}', *FLAGS))
    assert f'flags {flags}\n' in cloud.log(worker)
    calls = (cloud.folder / 'workers' / str(worker) / 'python_calls').read_text()
    assert 'pip install' in calls and 'constraints-3.11.txt -e .[tpu]' in calls


def test_again_changes_nothing(cloud):
  cloud.run('run', *FLAGS)
  code, text = cloud.run('run', *FLAGS, DELETE_AT_END='1')
  assert code == 0, text
  assert len(cloud.calls('create')) == 1
  assert len(cloud.calls('tpu-vm delete')) == 1 and not (cloud.folder / 'tpu-vm').exists()


def test_sigterm_of_somebody_else_is_resumed(cloud):
  cloud.pace(0.3)
  process = cloud.script('run', *FLAGS)
  cloud.wait_for(lambda: cloud.calls('tpu_worker.sh status') and cloud.steps())
  os.kill(int((cloud.folder / 'workers' / '1' / 'hvae_run' / 'pid').read_text()), signal.SIGTERM)
  text = process.communicate(timeout=100)[0]
  assert process.returncode == 0, text
  assert 'was told to end, but not by launch/tpu_pod.sh stop' in text and 'finished: step 8' in text
  assert len(cloud.calls('create')) == 1 and len(cloud.calls('tpu_worker.sh start')) == 2


def test_command_that_resumes_names_what_was_chosen(cloud):
  cloud.troubles(dict(worker=0, at=1, code=1))
  chosen = dict(QUEUED='1', VALID_UNTIL='6h', NETWORK='a b', SERVICE_ACCOUNT='me', MAX_RESTARTS='9')
  code, text = cloud.run('run', *FLAGS, **chosen, SPOT='0', DATA_ACCESS='copy')
  resume = next(line for line in text.splitlines() if line.startswith('to resume: '))
  assert resume.removeprefix('to resume: ') == (
    f'ZONE=here-a ACCELERATOR=v5litepod-16 WORKDIR={WORKDIR} NAME=pod QUEUED=1 VALID_UNTIL=6h '
    'NETWORK=a\\ b SERVICE_ACCOUNT=me MIN_FREE_GB=0 MAX_RESTARTS=9 POLL_SECONDS=0.2 TIMEOUT=20 '
    'ATTEMPTS=3 launch/tpu_pod.sh run --config=configs/cifar10.py:vdvae\\,debug '
    "--config.sample.temperatures=\\(1.0\\,\\'x\\ y\\'\\)"
  )


def test_crash_is_told_and_resumed(cloud):
  cloud.troubles(dict(worker=1, at=4, code=134))
  code, text = cloud.run('run', *FLAGS)
  assert code == 0, text
  assert 'ended first: host=w-1 state=ended code=134' in text
  assert 'last saved step: 3' in text or 'last saved step: 4' in text
  assert f'WORKDIR={WORKDIR} ' in text and 'launch/tpu_pod.sh run --config=configs/cifar10' in text
  assert 'trouble at step 4' in text and 'finished: step 8' in text
  assert len(cloud.calls('create')) == 1


def test_crash_without_end(cloud):
  cloud.troubles(dict(worker=0, at=3, code=1, times=100))
  code, text = cloud.run('run', *FLAGS, MAX_RESTARTS='1')
  assert code == 1 and 'crashed 2 times at step 2; pod is still there' in text


def test_mistake_in_the_flags(cloud):
  cloud.troubles(*(dict(worker=worker, at=1, code=2, times=100) for worker in (0, 1)))
  code, text = cloud.run('run', *FLAGS)
  assert code == 1 and 'hvae_tpu.main refused its flags' in text and 'trouble at step 1' in text
  assert len(cloud.calls('tpu_worker.sh start')) == 1


def test_mistake_of_one_beside_a_crash_is_a_crash(cloud):
  cloud.troubles(dict(worker=0, at=3, code=2))  # the other one ends with 1
  code, text = cloud.run('run', *FLAGS)
  assert code == 0 and 'state=ended code=2' in text and 'state=ended code=1 ' in text, text
  assert len(cloud.calls('create')) == 1 and len(cloud.calls('tpu_worker.sh start')) == 2


@pytest.mark.parametrize('trouble', [75, 143])
def test_what_may_work_again_is_started_again(cloud, trouble):
  cloud.troubles(*(dict(worker=worker, at=1, code=trouble) for worker in (0, 1)))
  code, text = cloud.run('run', *FLAGS)
  assert code == 0 and 'finished: step 8' in text, text
  assert len(cloud.calls('tpu_worker.sh start')) == 2


def test_stop_saves_and_tells_how_to_resume(cloud):
  cloud.pace(1)
  process = cloud.script('run', *FLAGS)
  cloud.wait_for(lambda: cloud.calls('tpu_worker.sh status') and cloud.steps())
  assert cloud.run('start', *FLAGS)[1].count('is running already') == 2
  assert cloud.run('stop')[0] == 0
  text = process.communicate(timeout=60)[0]
  assert process.returncode == 1 and 'because it was told to. To resume: ZONE=here-a' in text
  assert cloud.steps()[-1] < 8
  assert cloud.run('status')[1].count('state=ended code=0') == 2
  cloud.pace(0)
  code, text = cloud.run('run', *FLAGS)
  assert code == 0 and 'finished: step 8' in text


def test_logs_follow_until_ctrl_c(cloud):
  cloud.run('run', *FLAGS)
  pid, terminal = cloud.in_terminal('logs', LOG_WORKER='1')
  text = b''
  while b'step 8/8' not in text:
    text += os.read(terminal, 1000)
  assert cloud.is_followed()
  os.write(terminal, b'\x03')
  cloud.wait_for(lambda: os.waitpid(pid, os.WNOHANG)[0])
  os.close(terminal)
  assert not cloud.is_followed()


@pytest.mark.parametrize('when', ['tpu-vm create', 'tpu_worker.sh status'])
def test_ctrl_c_ends_a_run_that_waits_for_gcloud(cloud, when):
  cloud.rules(dict(when=when, do='hang', times=100))
  pid, terminal = cloud.in_terminal('run', *FLAGS, TIMEOUT='120')
  cloud.wait_for(lambda: cloud.calls(when))
  os.write(terminal, b'\x03')
  cloud.wait_for(lambda: os.waitpid(pid, os.WNOHANG)[0])
  os.close(terminal)
  assert len(cloud.calls(when)) == 1


@pytest.fixture
def data(cloud):
  folder = cloud.folder / 'buckets' / 'bucket' / 'data' / 'cifar10'
  folder.mkdir(parents=True)
  (folder / 'dataset.json').write_text('{}')
  (folder / 'train.array_record').write_bytes(bytes(10_000))
  return 'gs://bucket/data/cifar10'


def test_data_is_copied_to_every_worker(cloud, data):
  code, text = cloud.run('run', *FLAGS, DATA=data)
  assert code == 0, text
  for worker in (0, 1):
    home = cloud.folder / 'workers' / str(worker)
    assert (home / 'data' / 'cifar10' / 'train.array_record').stat().st_size == 10_000
    assert f'data {home}/data\n' in cloud.log(worker)


def test_slashes_at_the_end_change_nothing(cloud, data):
  code, text = cloud.run('run', *FLAGS, DATA=f'{data}/', WORKDIR=f'{WORKDIR}//')
  assert code == 0 and f'finished: step 8 in {WORKDIR}\n' in text, text
  assert f'data {cloud.folder}/workers/0/data\n' in cloud.log()
  assert f'--workdir={WORKDIR} ' in cloud.log()


def test_data_in_a_folder_of_the_workers(cloud, data, tmp_path):
  folder = tmp_path / 'mounted' / 'cifar10'
  shutil.copytree(cloud.folder / 'buckets' / 'bucket' / 'data' / 'cifar10', folder)
  code, text = cloud.run('run', *FLAGS, DATA=str(folder))
  assert code == 0 and f'data {folder.parent}\n' in cloud.log() and not cloud.calls('storage rsync')


def test_mounted_bucket(cloud, data):
  code, text = cloud.run('prepare', DATA=data, DATA_ACCESS='mount')
  assert code == 1 and not (cloud.folder / 'mounts').exists()  # there is no slice yet
  cloud.run('create')
  code, text = cloud.run('prepare', DATA=data, DATA_ACCESS='mount')
  mounts = (cloud.folder / 'mounts').read_text().splitlines()
  assert f'--implicit-dirs -o ro bucket {cloud.folder}/workers/1/bucket' in mounts
  assert not cloud.calls('storage rsync')
  assert 'bucket/data/cifar10 has no dataset.json' in text  # this gcsfuse mounts nothing


@pytest.mark.parametrize(
  ('variables', 'message'),
  [
    (dict(MIN_FREE_GB='100000000'), 'w-0: '),
    (dict(MIN_FREE_GB='100000000'), 'MIN_FREE_GB=100000000 are needed; use DATA_ACCESS=mount'),
    (dict(DATA='gs://bucket/data'), 'has no dataset.json: DATA=gs://bucket/data must be'),
  ],
)
def test_what_only_the_user_can_help(cloud, data, variables, message):
  cloud.run('create')
  code, text = cloud.run('prepare', **dict(DATA=data) | variables)
  assert code == 1 and message in text
  assert len(cloud.calls('tpu_worker.sh prepare')) == 1


def test_dry_run_prints_all_commands_and_runs_none(cloud):
  code, text = cloud.run('run', *FLAGS, DRY_RUN='1', DATA='gs://bucket/data/cifar10')
  assert code == 0 and not cloud.calls(), text
  commands = [line for line in text.splitlines() if line.startswith('+ gcloud compute tpus tpu-vm')]
  for part in (' create ', ' scp ', 'recursive-unlink', 'tpu_worker.sh\\ prepare', 'start'):
    assert any(part in line for line in commands), part
  assert 'RUNTIME_VERSION  v2-alpha-tpuv5-lite' in text


@pytest.mark.parametrize(
  ('command', 'variables', 'message'),
  [
    ('', {}, 'needs a command: run, create, prepare, start, status, logs, stop or delete'),
    ('walk', {}, "found 'walk'"),
    ('run', dict(ZONE=None), 'ZONE is not set: the zone of the slice'),
    ('run', dict(ACCELERATOR=None), 'ACCELERATOR is not set'),
    ('run', dict(WORKDIR=None), 'WORKDIR is not set'),
    ('run', dict(WORKDIR='runs/a'), 'WORKDIR=runs/a must be gs://BUCKET/FOLDER, or the absolute'),
    ('run', dict(DATA='cifar10'), 'DATA=cifar10 must be the folder of one data set'),
    ('run', dict(DATA_ACCESS='stream'), 'DATA_ACCESS=stream must be copy or mount'),
  ],
)
def test_refused(cloud, command, variables, message):
  code, text = cloud.run(command, **variables)
  assert code == 1 and message in text.splitlines()[-1] and not cloud.calls()


def test_workdir_among_the_flags_is_refused(cloud):
  code, text = cloud.run('run', '--workdir=runs/a')
  assert code == 1 and 'Give the work directory as WORKDIR=..., not as --workdir=runs/a' in text


def test_python_is_installed_where_it_is_too_old(tmp_path):
  home, bin_ = tmp_path / 'home', tmp_path / 'bin'
  old = f"""#!/bin/sh
case "$*" in
  *version_info*) echo 10 ;;
  *'install --quiet --user uv'*) mkdir -p "$HOME/.local/bin"; cp {bin_}/uv "$HOME/.local/bin" ;;
esac
"""
  new = f"""#!/bin/sh
case "$*" in
  *version_info*) echo 11 ;;
  *'-m venv'*) mkdir -p "$4/bin"; cp {bin_}/new "$4/bin/python" ;;
  *) echo "$*" >>"$HOME/python_calls" ;;
esac
"""
  for name in ('python3', 'python3.13', 'python3.12', 'python3.11'):
    fake_cloud._executable(bin_ / name, old)
  fake_cloud._executable(bin_ / 'new', new)
  uv = f'#!/bin/sh\n[ "$2" != find ] || echo {bin_}/new\n'
  fake_cloud._executable(bin_ / 'uv', uv)
  (home / 'hvae_tpu').mkdir(parents=True)
  for name in ('launch', 'setup.py', 'pyproject.toml'):
    (home / 'hvae_tpu' / name).symlink_to(ROOT / name)
  variables = dict(HOME=str(home), PATH=f'{bin_}{os.pathsep}{os.environ["PATH"]}')
  variables |= dict(WORKDIR=WORKDIR, DATA='', DATA_ACCESS='copy', MIN_FREE_GB='0', EXTRAS='tpu')
  done = subprocess.run(
    ['bash', str(home / 'hvae_tpu' / 'launch' / 'tpu_worker.sh'), 'prepare'],
    env=os.environ | variables,
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == 0, done.stderr
  assert 'has no Python >= 3.11: installing 3.11' in done.stdout
  assert '-e .[tpu]' in (home / 'python_calls').read_text()
