"""Settings of progress bars: silent for quick work, rare lines if the output is not a terminal."""

import sys

# Arguments of tqdm.
QUIET = {'delay': 5, 'mininterval': 0.5 if sys.stderr.isatty() else 60}
