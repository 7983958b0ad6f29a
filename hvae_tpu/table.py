"""The command `python -m hvae_tpu.table`; see `planning/config_tables.py`."""

import sys

from hvae_tpu.planning.config_tables import main

if __name__ == '__main__':
  sys.exit(main(sys.argv))
