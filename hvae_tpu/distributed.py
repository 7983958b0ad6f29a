"""Several processes that train together: TPU pods, and plain hosts."""

import jax

from hvae_tpu.errors import UserError


def start(coordinator: str, num_processes: int, process_id: int) -> None:
  """Joins the other processes; must come before any use of a device.

  Args:
    coordinator: '' for a single process; 'auto' where the environment tells everything (TPU pods,
      Slurm, Open MPI); else `host:port` of process 0.
    num_processes, process_id: of all, and of this one; not for 'auto'.

  Raises:
    UserError: the numbers do not fit, or the others were not reached.
  """
  if not coordinator:
    return
  try:
    if coordinator == 'auto':
      jax.distributed.initialize()
      return
    if not 0 <= process_id < num_processes:
      raise UserError(
        f'--process_id={process_id} must be from 0 to --num_processes={num_processes} less 1'
      )
    jax.distributed.initialize(coordinator, num_processes, process_id)
  except (RuntimeError, ValueError) as error:
    raise UserError(
      f'--coordinator={coordinator}: the processes did not find each other: {error}'
    ) from error
