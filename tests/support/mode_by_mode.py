"""Runs modes one after another in one process: `mode_by_mode.py MODE,MODE,... FLAGS...`.

The flags are those of `hvae_tpu.main` but --mode. Starting JAX for each takes too long.
"""

import sys
import types

from hvae_tpu import main, modes

names, *flags = sys.argv[1:]
chosen = [modes.MODES[name] for name in names.split(',')]
modes.MODES['these'] = types.SimpleNamespace(run=lambda *args: max(m.run(*args) for m in chosen))
sys.exit(main.main([sys.argv[0], '--mode=these', *flags]))
