"""Several real processes on this machine that compute together, on fake devices."""

import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Job:
  """A Python command on `num` processes with `devices` in all.

  Args:
    folder: where the output of each process is written; made if it is missing.
    data_root: `$HVAE_DATA`.
    num, devices: see above.
    command: what follows the name of the interpreter; each of several processes also gets
      --coordinator, --num_processes and --process_id.
  """

  def __init__(self, folder: pathlib.Path, data_root, num: int, devices: int, *command: str):
    folder.mkdir(exist_ok=True)
    port = free_port()
    env = os.environ | {
      'JAX_PLATFORMS': 'cpu',
      'JAX_NUM_CPU_DEVICES': str(devices // num),
      'HVAE_DATA': str(data_root),
    }
    self.processes, self.logs = [], []
    for i in range(num):
      several = (f'--coordinator=127.0.0.1:{port}', f'--num_processes={num}', f'--process_id={i}')
      self.logs.append(folder / f'{num}-{i}.txt')
      with self.logs[-1].open('w') as log:
        self.processes.append(
          subprocess.Popen(
            [sys.executable, *command, *(several if num > 1 else ())],
            cwd=ROOT,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
          )
        )

  def wait(self) -> list[int]:
    """Exit codes; what takes longer than four minutes is killed."""
    try:
      return [process.wait(240) for process in self.processes]
    finally:
      for process in self.processes:
        process.kill()

  def text(self) -> str:
    return '\n'.join(log.read_text() for log in self.logs)


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]
