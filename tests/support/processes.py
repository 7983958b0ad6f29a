"""Several real processes on this machine that compute together, on fake devices."""

import pathlib
import signal

from launch.processes import Processes

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Job(Processes):
  """A Python command on `num` processes with `devices` in all.

  Args:
    folder: folder for the output of each process; made if it is missing.
    data_root: `$HVAE_DATA`.
    num, devices: see above.
    command: arguments of the interpreter.
  """

  def __init__(self, folder: pathlib.Path, data_root, num: int, devices: int, *command: str):
    super().__init__(num, command, folder, devices // num, {'HVAE_DATA': str(data_root)})

  def wait(self, grace: float = 240, limit: float = 240) -> list[int]:
    """Waits for exit codes; kills processes after four minutes."""
    try:
      return super().wait(grace, limit)
    finally:
      self.send(signal.SIGKILL)

  def text(self) -> str:
    return '\n'.join(log.read_text() for log in self.logs)
