"""A cloud for the tests of launch/tpu_pod.sh, in a folder: `gcloud`, two workers, and a training.

`install` makes the commands; `$FAKE_CLOUD` is the folder. What `gcloud` was asked stands in
`calls`, one JSON list a line. Commands for a worker run here, in a home of its own; the training
there is `trainer`, which saves each of its steps; `pace` holds their seconds.

`rules.json` and `trainer.json` say what goes wrong:
* rules: `when` (part of a call), `skip` and `times` (how many such calls), `do`: fail, hang,
  preempt, or wait (a queued resource that gets no machines)
* training: `worker`, `at` (step), `times`, and the `code` to end with, or `preempt`, perhaps with
  the seconds of `notice` between SIGTERM and the end of the machines
"""

import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
NUM_WORKERS = 2
NUM_STEPS = 8
PYTHON = """#!/usr/bin/env bash
# The interpreter of a worker, as far as launch/environment.sh asks.
case "$*" in
  *hvae_tpu.main*) exec {command} trainer "$@" ;;
  *version_info*) echo 11 ;;
  *) echo "$*" >>"$HOME/python_calls" ;;
esac
"""


def install(folder: pathlib.Path) -> dict[str, str]:
  """Makes the cloud and its commands; returns the environment that finds them."""
  (folder / 'bin').mkdir(parents=True)
  _executable(folder / 'bin' / 'gcloud', f'#!/bin/sh\nexec {_command()} gcloud "$@"\n')
  _executable(folder / 'bin' / 'gcsfuse', '#!/bin/sh\necho "$*" >>"$FAKE_CLOUD/mounts"\n')
  (folder / 'pace').write_text('0.05')
  path = f'{folder / "bin"}{os.pathsep}{os.environ["PATH"]}'
  return {'FAKE_CLOUD': str(folder), 'PATH': path, 'HOME': str(folder)}


def _command() -> str:
  return f'{sys.executable} -S {pathlib.Path(__file__).resolve()}'


def _executable(path: pathlib.Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)


def cloud() -> pathlib.Path:
  return pathlib.Path(os.environ['FAKE_CLOUD'])


def locate(path: str) -> pathlib.Path:
  """Returns the place in the folder of something in a bucket."""
  return cloud() / 'buckets' / path.removeprefix('gs://')


def take(file: str, matches) -> dict | None:
  """Uses up the first due entry of a file of troubles that matches, and returns it."""
  path = cloud() / file
  if not path.exists():
    return None
  with (cloud() / f'{file}.lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    entries = json.loads(path.read_text())
    due = None
    for entry in entries:
      if not matches(entry) or not entry.get('times', 1):
        continue
      if entry.get('skip', 0):
        entry['skip'] -= 1
      elif due is None:
        entry['times'] = entry.get('times', 1) - 1
        due = entry
    write(path, json.dumps(entries))
  return due


def write(path: pathlib.Path, text: str) -> None:
  """Replaces a file at once: this process may be killed, and others use the file."""
  partial = path.with_suffix(f'.partial-{os.getpid()}')
  partial.write_text(text)
  partial.replace(path)


def become(kind: str, state: str) -> None:
  """Sets the state of the machines ('tpu-vm') or of the request ('queued-resources')."""
  write(cloud() / kind, state)


def gcloud(arguments: list[str]) -> int:
  with (cloud() / 'calls').open('a') as calls:
    calls.write(json.dumps(arguments) + '\n')
  rule = take('rules.json', lambda entry: entry['when'] in ' '.join(arguments)) or {}
  if rule.get('do') == 'fail':
    print('ERROR: (gcloud) UNAVAILABLE: try again', file=sys.stderr)
    return 1
  if rule.get('do') == 'preempt':
    preempt(0)
    return 1
  if rule.get('do') == 'hang':
    time.sleep(60)
  if arguments[0] == 'storage':
    return storage(arguments[1:])
  kind, verb, *rest = arguments[2:]  # behind `compute tpus`
  if rule.get('do') == 'wait':
    become(kind, 'WAITING_FOR_RESOURCES')
    return 0
  return {'create': create, 'describe': describe, 'delete': delete, 'ssh': ssh, 'scp': scp}[verb](
    kind, rest
  )


def option(rest: list[str], name: str) -> str:
  return next(r.partition('=')[2] for r in rest if r.startswith(f'--{name}='))


def create(kind: str, rest: list[str]) -> int:
  if (cloud() / 'tpu-vm').exists():
    print('ERROR: (gcloud) ALREADY_EXISTS', file=sys.stderr)
    return 1
  for number in range(NUM_WORKERS):
    home = cloud() / 'workers' / str(number)
    _executable(home / 'hvae_tpu' / '.venv' / 'bin' / 'python', PYTHON.format(command=_command()))
    _executable(home / 'bin' / 'hostname', f'#!/bin/sh\necho w-{number}\n')
  if kind == 'queued-resources':
    become(kind, 'ACTIVE')
  become('tpu-vm', 'READY')
  return 0


def describe(kind: str, rest: list[str]) -> int:
  path = cloud() / kind
  if not path.exists():
    print(f'ERROR: (gcloud) NOT_FOUND: {rest[0]}', file=sys.stderr)
    return 1
  print(path.read_text())
  return 0


def delete(kind: str, rest: list[str]) -> int:
  for name in {kind, 'tpu-vm'}:
    (cloud() / name).unlink(missing_ok=True)
  end_machines()
  return 0


def trainings() -> list[int]:
  """Returns the process ids of running trainings, this process last."""
  runs = (cloud() / 'workers').glob('*/hvae_run')
  pids = [int((r / 'pid').read_text()) for r in runs if not (r / 'ended').exists()]
  return sorted(pids, key=lambda pid: pid == os.getpid())


def end_machines() -> None:
  pids = trainings()
  shutil.rmtree(cloud() / 'workers', ignore_errors=True)
  for pid in pids:
    os.kill(pid, signal.SIGKILL)


def preempt(notice: float) -> None:
  """Loses the machines' contents; without notice, the training ends without a word."""
  if notice:
    for pid in trainings():
      os.kill(pid, signal.SIGTERM)
    if os.fork():
      return
    time.sleep(notice)
  become('tpu-vm', 'PREEMPTED')
  if (cloud() / 'queued-resources').exists():
    become('queued-resources', 'SUSPENDED')
  end_machines()
  if notice:
    os._exit(0)


def homes(rest: list[str]) -> list[pathlib.Path]:
  which = option(rest, 'worker')
  names = map(str, range(NUM_WORKERS)) if which == 'all' else [which]
  return [cloud() / 'workers' / name for name in names]


def ssh(kind: str, rest: list[str]) -> int:
  codes = []
  for home in homes(rest):
    environment = os.environ | {'HOME': str(home), 'PATH': f'{home}/bin:{os.environ["PATH"]}'}
    command = ['bash', '-c', option(rest, 'command')]
    codes.append(subprocess.run(command, cwd=home, env=environment, check=False).returncode)
  return max(codes)


def scp(kind: str, rest: list[str]) -> int:
  for home in homes(rest):
    shutil.copy(rest[0], home / rest[1].partition(':')[2])
  return 0


def storage(arguments: list[str]) -> int:
  verb, *rest = [a for a in arguments if not a.startswith('--')]
  if verb == 'ls':
    paths = sorted((cloud() / 'buckets').glob(rest[0].removeprefix('gs://')))
    if not paths:
      print('ERROR: (gcloud) One or more URLs matched no objects.', file=sys.stderr)
      return 1
    print('\n'.join(f'gs://{path.relative_to(cloud() / "buckets")}' for path in paths))
  elif verb == 'du':
    sizes = [p.stat().st_size for p in locate(rest[0]).rglob('*') if p.is_file()]
    print(f'{sum(sizes)}  {rest[0]}')
  elif verb == 'rsync':
    shutil.copytree(locate(rest[0]), rest[1], dirs_exist_ok=True)
  return 0


def meet(worker: str) -> None:
  """Waits until every process has come here as often as this one."""
  with (cloud() / f'met-{worker}').open('a') as own:
    own.write('.')
  paths = [cloud() / f'met-{number}' for number in range(NUM_WORKERS)]
  met = lambda path: path.stat().st_size if path.exists() else 0
  deadline = time.monotonic() + 30
  while min(map(met, paths)) < met(cloud() / f'met-{worker}'):
    if time.monotonic() > deadline:
      sys.exit('the other processes did not come')
    time.sleep(0.01)


def trainer(arguments: list[str]) -> int:
  """Runs one process of a training; like real ones, all stop if one does."""
  worker = pathlib.Path(os.environ['HOME']).name
  workdir = next(a.partition('=')[2] for a in arguments if a.startswith('--workdir='))
  folder = locate(workdir) / 'checkpoints'
  folder.mkdir(parents=True, exist_ok=True)
  meet(worker)
  stopping = cloud() / 'stopping'
  stopping.unlink(missing_ok=True)
  meet(worker)
  signal.signal(signal.SIGTERM, lambda *_: stopping.write_text('0'))
  print(f'data {os.environ["HVAE_DATA"]}')
  print(f'flags {" ".join(arguments)}')
  start = max((int(p.name) for p in folder.iterdir()), default=0)
  meet(worker)
  print(f'from step {start} to {NUM_STEPS}', flush=True)
  for step in range(start + 1, NUM_STEPS + 1):
    time.sleep(float((cloud() / 'pace').read_text()))
    trouble = take(
      'trainer.json', lambda e, step=step: (str(e['worker']), e['at']) == (worker, step)
    )
    if trouble and trouble.get('preempt'):
      preempt(trouble.get('notice', 0))
    elif trouble:
      stopping.write_text('1')
      print(f'trouble at step {step}', flush=True)
      return trouble['code']
    if stopping.exists():
      print(f'stopped at step {step}; the same command resumes', flush=True)
      time.sleep(0.3)  # the one that is in trouble ends first
      return int(stopping.read_text())
    if worker == '0':
      (folder / str(step)).mkdir(exist_ok=True)
      (folder / str(step) / 'commit_success.txt').touch()
    print(f'step {step}/{NUM_STEPS}', flush=True)
  return 0


if __name__ == '__main__':
  sys.exit({'gcloud': gcloud, 'trainer': trainer}[sys.argv[1]](sys.argv[2:]))
