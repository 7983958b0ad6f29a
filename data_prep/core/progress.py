"""How progress bars behave: silent for what is quick, rare lines where nobody watches."""

import sys

# Arguments of tqdm.
QUIET = {'delay': 5, 'mininterval': 0.5 if sys.stderr.isatty() else 60}
