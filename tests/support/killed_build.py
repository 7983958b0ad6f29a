"""Builds in shards of ten small pictures: `python -m tests.support.killed_build MOMENT ...`.

At `between` the process kills itself with SIGKILL when the second shard is finished, at `card` when
half of the data card is written, at `never` not at all. At `interrupt` it sends itself SIGINT
within the third shard.
"""

from collections.abc import Callable
import os
import pathlib
import signal
import sys
import threading
from typing import BinaryIO

from data_prep import build
from data_prep.core import records, shards
from data_prep.raw import preparation

SIZE = 32  # px of a picture in the records
PER_SHARD = 10


def kill_self(signum: int = signal.SIGKILL) -> None:
  os.kill(os.getpid(), signum)


def interrupt_soon() -> None:
  threading.Timer(0.02, kill_self, [signal.SIGINT]).start()


class KillingBar(shards.tqdm):
  """A progress bar, which is told of each shard, that calls `at_second` at the second one."""

  at_second = staticmethod(kill_self)

  def update(self, n: float = 1) -> None:
    super().update(n)
    if self.n == 2:
      self.at_second()


def write_half_a_card(path: pathlib.Path, write: Callable[[BinaryIO], object]) -> None:
  if path.name != 'dataset.json':
    shards.write_whole(path, write)
    return
  path.with_name(path.name + '.part').write_bytes(b'{"half": ')
  kill_self()


if __name__ == '__main__':
  preparation._SHARD = PER_SHARD * SIZE * SIZE * 3
  moment = sys.argv[1]
  if moment in ('between', 'interrupt'):
    shards.tqdm = KillingBar
    if moment == 'interrupt':
      KillingBar.at_second = staticmethod(interrupt_soon)
  elif moment == 'card':
    records.write_whole = write_half_a_card
  sys.exit(build.main(sys.argv[2:]))
