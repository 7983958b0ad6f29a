"""Signals, in processes of their own."""

from collections.abc import Iterator
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

from hvae_tpu.devices.interruption import Interruption
from launch import processes

# Prints READY when it listens, and after each line of its input the exit code, if a signal came.
PROGRAM = """
import sys
from hvae_tpu.devices.interruption import Interruption
with Interruption() as interruption:
  print('READY', flush=True)
  for _ in sys.stdin:
    print(interruption.requested and interruption.exit_code, flush=True)
"""
# The main thread is inside one long call, as in the compiler: Python's own handlers do not run.
BUSY = """
import hashlib
from hvae_tpu.devices.interruption import Interruption
with Interruption():
  print('READY', flush=True)
  hashlib.pbkdf2_hmac('sha256', b'password', b'salt', 2**31 - 1)
"""
# The same as on a slice of one host: JAX hears SIGTERM from the first line on.
ALONE = """
import sys
from hvae_tpu.devices import distributed
from hvae_tpu.devices.interruption import Interruption
distributed.start('127.0.0.1:' + {port!r}, 1, 0, 20)
print('READY', flush=True)
sys.stdin.readline()
with Interruption() as interruption:
  for _ in sys.stdin:
    print(interruption.poll() and interruption.exit_code, flush=True)
"""


@contextlib.contextmanager
def start(program: str) -> Iterator[subprocess.Popen]:
  process = subprocess.Popen(
    [sys.executable, '-c', program],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  try:
    assert process.stdout.readline() == 'READY\n'
    yield process
  finally:
    process.kill()
    process.wait()
    process.stdout.close()


def ask(process: subprocess.Popen) -> str:
  process.stdin.write('\n')
  process.stdin.flush()
  return process.stdout.readline().strip()


def test_first_interrupt_is_noted_and_second_leaves_at_once():
  with start(PROGRAM) as process:
    assert ask(process) == 'False'
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == '\n'
    assert 'Ctrl-C again leaves at once' in process.stdout.readline()
    assert ask(process) == '130'
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130


def test_second_interrupt_ends_a_long_call():
  with start(BUSY) as process:
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == '\n'
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130


def test_handlers_are_put_back():
  before = [signal.getsignal(s) for s in Interruption.EXIT_CODES]
  threads = threading.active_count()
  with Interruption() as interruption:
    assert not interruption.requested
    assert signal.getsignal(signal.SIGTERM) not in before
  assert [signal.getsignal(s) for s in Interruption.EXIT_CODES] == before
  for thread in threading.enumerate()[threads:]:
    thread.join(timeout=10)
  assert threading.active_count() == threads


def test_terminate_is_noted_and_ends_well():
  with start(PROGRAM) as process:
    process.send_signal(signal.SIGTERM)
    while (answer := ask(process)) == 'False':
      pass
    assert answer == '0'
    process.send_signal(signal.SIGINT)  # the first of its kind: noted as well
    assert ask(process) in ('0', '')
    process.stdin.close()
    assert process.wait(timeout=20) == 0


def test_terminate_during_the_start_of_a_single_process():
  """Polls until the service, which asks every second, has heard of it."""
  with start(ALONE.format(port=str(processes.free_port()))) as process:
    process.send_signal(signal.SIGTERM)
    process.stdin.write('\n')
    deadline = time.monotonic() + 60
    while (answer := ask(process)) == 'False' and time.monotonic() < deadline:
      time.sleep(0.2)
    assert answer == '0'
