"""The command `python -m hvae_tpu.table`; see `planning/table.py`."""

import sys

from hvae_tpu.planning.table import main

if __name__ == '__main__':
  sys.exit(main(sys.argv))
