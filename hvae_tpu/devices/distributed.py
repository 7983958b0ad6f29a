"""Training on several processes: TPU pods, and plain hosts."""

from collections.abc import Iterator
import contextlib
import os
import sys
import threading

import jax
from jax.experimental import multihost_utils

from hvae_tpu.errors import TransientError, UserError


def start(coordinator: str, num_processes: int, process_id: int, heartbeat_seconds: int) -> None:
  """Joins the other processes; must come before any use of a device.

  Args:
    coordinator: '' for a single process; 'auto' if the environment has the addresses (TPU pods,
      Slurm, Open MPI); else `host:port` of process 0.
    num_processes: number of all processes; not for 'auto'.
    process_id: number of this process, from 0; not for 'auto'.
    heartbeat_seconds: the others end so long after the last sign of life of a process.

  Raises:
    UserError: the numbers do not fit, or the environment has no addresses.
    TransientError: the other processes were not reached.
  """
  if not coordinator:
    return
  try:
    if coordinator == 'auto':
      jax.distributed.initialize(heartbeat_timeout_seconds=heartbeat_seconds)
    elif not 0 <= process_id < num_processes:
      raise UserError(
        f'--process_id={process_id} must be from 0 to --num_processes={num_processes} less 1'
      )
    else:
      jax.distributed.initialize(
        coordinator, num_processes, process_id, heartbeat_timeout_seconds=heartbeat_seconds
      )
    meet('start')
  except (RuntimeError, ValueError) as error:
    # Waiting in vain for the others raises the one, reading the addresses the other.
    kind = TransientError if isinstance(error, RuntimeError) else UserError
    raise kind(
      f'--coordinator={coordinator}: the processes did not find each other: {error}'
    ) from error


def meet(name: str) -> None:
  """Waits until all processes have called it with this name.

  Call it before the first sum over devices. On CPUs, devices try to connect for 30 s at most, and
  one process may compile for longer than that after another one.
  """
  multihost_utils.sync_global_devices(name)


def print_once(*lines: str) -> None:
  """Prints lines on the first process only."""
  if jax.process_index() == 0:
    for line in lines:
      print(line)
    sys.stdout.flush()


@contextlib.contextmanager
def leaving_together(heartbeat_seconds: int) -> Iterator[None]:
  """Bounds the time that a failed process waits for the others to end.

  In JAX, every process waits for all others at its end. If one fails, the others wait in turn for
  its part of a sum: nobody would end.
  """
  try:
    yield
  except BaseException as error:
    if jax.distributed.is_initialized() and jax.process_count() > 1:
      code = error.exit_code if isinstance(error, UserError) else 1
      leave = threading.Timer(heartbeat_seconds, _leave, (code,))
      leave.daemon = True
      leave.start()
    raise


def _leave(code: int) -> None:
  """Ends the process at once."""
  sys.stderr.flush()
  os._exit(code)
