"""Tables of configs: `python -m hvae_tpu.table`; see `planning/config_tables.py`."""

import sys

from absl import flags

from hvae_tpu.planning import config_tables

if __name__ == '__main__':
  flags.adopt_module_key_flags(config_tables)
  sys.exit(config_tables.main(sys.argv))
