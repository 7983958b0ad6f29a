"""Stopping between steps: Ctrl-C and SIGTERM are recorded, and loops ask for them."""

import os
import signal
import threading

import jax
from jax.experimental import multihost_utils


class Interrupted(Exception):
  """The signal to end an evaluation, so that the loop can save and end."""


class Interruption:
  """A context manager that catches SIGINT and SIGTERM.

  The first signal is only recorded. A second SIGINT ends the process at once, even while the main
  thread is inside the compiler, because a thread reads the signals from a pipe.

  With several processes, a signal to one of them is enough: `poll` agrees on all of them.
  """

  EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 0}

  def __init__(self):
    self._signal = None
    self._polls = 0

  def poll(self) -> bool:
    """Returns whether to stop. Every process must call it equally often, between the same steps."""
    if self._signal is None and jax.distributed.is_initialized():
      self._polls += 1
      # The service that hears SIGTERM agrees on a call that no process has passed yet.
      if multihost_utils.reached_preemption_sync_point(self._polls):
        self._signal = signal.SIGTERM
    return self.requested

  def raise_if_interrupted(self) -> None:
    """Polls, and raises Interrupted if the process is to stop."""
    if self.poll():
      raise Interrupted

  @property
  def requested(self) -> bool:
    """Whether a signal has come."""
    return self._signal is not None

  @property
  def exit_code(self) -> int:
    """Exit code of the process once its state is saved."""
    return self.EXIT_CODES[self._signal]

  def __enter__(self) -> 'Interruption':
    self._read_end, self._write_end = os.pipe()
    os.set_blocking(self._write_end, False)
    # SIGTERM already belongs to the service that `poll` asks, from the start of the process on.
    signals = [signal.SIGINT] if jax.distributed.is_initialized() else list(self.EXIT_CODES)
    self._old = {s: signal.signal(s, self._record) for s in signals}
    self._old_fd = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
    threading.Thread(target=self._watch, daemon=True).start()
    return self

  def __exit__(self, *_) -> None:
    signal.set_wakeup_fd(self._old_fd)
    for signum, handler in self._old.items():
      signal.signal(signum, handler)
    os.close(self._write_end)  # ends the thread, which closes the other end

  def _record(self, signum, _frame) -> None:
    """Handles a signal. Among several processes, all of them hear of it as SIGTERM."""
    if jax.distributed.is_initialized():
      os.kill(os.getpid(), signal.SIGTERM)
    else:
      self._signal = self._signal or signal.Signals(signum)

  def _watch(self) -> None:
    """Reads signals from the pipe, and ends the process at the second SIGINT."""
    interrupts = 0
    while received := os.read(self._read_end, 1):
      interrupts += received[0] == signal.SIGINT
      if interrupts == 1 and received[0] == signal.SIGINT:
        print('\nstopping after this step; Ctrl-C again leaves at once', flush=True)
      elif interrupts > 1:
        os._exit(130)
    os.close(self._read_end)
