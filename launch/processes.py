"""Runs hvae_tpu.main in several processes of this machine, as if they were as many hosts.

    python launch/processes.py --num=2 --devices=4 -- --config=configs/demo_mnist.py --workdir=DIR

Each process writes to a file below --logs; the output of process 0 is also printed. When one fails,
the others have --grace seconds to notice. Then this script prints which process failed first, the
last step that was saved, and the command that resumes.
"""

import argparse
from collections.abc import Mapping, Sequence
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from types import MappingProxyType

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Processes:
  """Started processes, one for each host.

  Attributes:
    processes: in the order of their numbers.
    logs: log file of each process.
    first: (number, exit code) of the first process that failed, or None.
  """

  def __init__(
    self,
    num: int,
    command: Sequence[str],
    logs: pathlib.Path,
    devices: int = 0,
    environment: Mapping[str, str] = MappingProxyType({}),
  ):
    """Starts the processes.

    Args:
      num: number of processes; a single one needs no coordinator.
      command: arguments of the interpreter.
      logs: folder, made if it is missing.
      devices: fake CPU devices per process; 0: the real ones.
      environment: variables to set.
    """
    logs.mkdir(parents=True, exist_ok=True)
    address = f'127.0.0.1:{free_port()}' if num > 1 else ''
    fake = {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(devices)} if devices else {}
    self.logs = [logs / f'{num}-{i}.txt' for i in range(num)]
    self.processes, self.first = [], None
    for i, path in enumerate(self.logs):
      place = {'JAX_COORDINATOR_ADDRESS': address, 'JAX_NUM_PROCESSES': str(num)}
      with path.open('w') as log:
        self.processes.append(
          subprocess.Popen(
            [sys.executable, '-u', *command],
            cwd=ROOT,
            env=os.environ | environment | fake | place | {'JAX_PROCESS_ID': str(i)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches each of them once, from here
          )
        )

  def send(self, signum: int) -> None:
    """Sends a signal to every running process."""
    for process in self.processes:
      if process.poll() is None:
        process.send_signal(signum)

  def wait(self, grace: float, limit: float = float('inf')) -> list[int]:
    """Waits until all processes have ended, and returns their exit codes.

    Args:
      grace: seconds after the first failure; then the other processes are killed.
      limit: seconds after which all processes are killed.
    """
    deadline = time.monotonic() + limit
    while any(process.poll() is None for process in self.processes):
      self._note_first()
      if self.first is not None:
        deadline, grace = min(deadline, time.monotonic() + grace), float('inf')
      if time.monotonic() > deadline:
        self.send(signal.SIGKILL)
      time.sleep(0.05)
    self._note_first()
    return [process.returncode for process in self.processes]

  def _note_first(self) -> None:
    failed = [(i, p.returncode) for i, p in enumerate(self.processes) if p.poll()]
    if self.first is None and failed:
      # If several failed since the last look, a killed one made the others fail.
      self.first = min(failed, key=lambda failure: failure[1])

  def __enter__(self) -> 'Processes':
    return self

  def __exit__(self, *_) -> None:
    self.send(signal.SIGKILL)
    for process in self.processes:
      process.wait()


def free_port() -> int:
  """Returns a port that is not in use."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def described(code: int) -> str:
  """Returns an exit code, or the signal behind it, as words."""
  return f'signal {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'


def last_saved(workdir: pathlib.Path) -> str:
  """Returns the step of the newest complete checkpoint of a run, or 'none'."""
  steps = [int(p.name) for p in (workdir / 'checkpoints').glob('*') if p.name.isdigit()]
  return str(max(steps)) if steps else 'none'


def report(processes: Processes, flags: Sequence[str]) -> None:
  """Prints the first failure, the last saved step, and the command that resumes."""
  number, code = processes.first
  print(f'process {number} ended first, with {described(code)}; see {processes.logs[number]}')
  for line in processes.logs[number].read_text(errors='replace').splitlines()[-3:]:
    print(f'  {line}')
  workdirs = [flag.partition('=')[2] for flag in flags if flag.startswith('--workdir=')]
  if workdirs:
    print(f'last saved step: {last_saved(ROOT / workdirs[-1])}')
  print(f'to resume: {shlex.join([sys.executable, *sys.argv])}', flush=True)


def show(path: pathlib.Path, ended: threading.Event) -> None:
  """Prints the lines that are added to a file, until `ended`."""
  with path.open(errors='replace') as log:
    while True:
      last = ended.is_set()
      sys.stdout.write(log.read())
      sys.stdout.flush()
      if last:
        return
      time.sleep(0.2)


def main() -> int:
  """Runs the command line. Returns the exit code of the first process that failed, or 0."""
  own, flags = sys.argv[1:], []
  if '--' in own:
    at = own.index('--')
    own, flags = own[:at], own[at + 1 :]
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--num', type=int, default=2, help='processes')
  parser.add_argument('--devices', type=int, default=0, help='fake CPU devices of each; 0: real')
  parser.add_argument('--logs', type=pathlib.Path, default=pathlib.Path('runs/logs'))
  parser.add_argument('--grace', type=float, default=120, help='seconds')
  parser.add_argument(
    '--module', default='hvae_tpu.main', help='module to run; the flags are its own'
  )
  options = parser.parse_args(own)
  command = ['-m', options.module, *flags]
  ended = threading.Event()
  with Processes(options.num, command, options.logs, options.devices) as processes:
    for i, process in enumerate(processes.processes):
      print(f'process {i} has the number {process.pid} and writes to {processes.logs[i]}')
    for signum in (signal.SIGINT, signal.SIGTERM):
      signal.signal(signum, lambda received, _: processes.send(received))
    shown = threading.Thread(target=show, args=(processes.logs[0], ended))
    shown.start()
    codes = processes.wait(options.grace)
    ended.set()
    shown.join()
  if processes.first is None:
    return 0
  code = processes.first[1]
  if code != 130:  # Ctrl-C saves
    report(processes, flags)
  print('exit codes: ' + ', '.join(map(str, codes)))
  return code if code > 0 else 128 - code


if __name__ == '__main__':
  sys.exit(main())
