"""Trains, and receives a signal at a step: `signalled.py SIGNAL STEP FLAGS...`, 0 for none.

Prints how often the compilation cache had not what was asked of it, as the last line.
"""

import os
import sys

from jax import monitoring

from hvae_tpu import main
from hvae_tpu.training import progress

signum, at = int(sys.argv[1]), int(sys.argv[2])
misses = []
monitoring.register_event_listener(
  lambda event, **_: misses.append(event) if event.endswith('/cache_misses') else None
)
line = progress.Progress.line


def signal_at(self, step, *args):
  line(self, step, *args)
  if step == at:
    os.kill(os.getpid(), signum)


progress.Progress.line = signal_at
code = main.main([sys.argv[0], *sys.argv[3:]])
print(f'cache misses: {len(misses)}', flush=True)
sys.exit(code)
