"""NVAE against stored results of its two reference implementations.

Files are found by `golden_files.find`; what is checked in a file follows from its keys, and every
size and option from its `config`, so files with other settings are checked just the same.
"""

import pytest

from tests.golden_checks.nvae import forward, heads, pieces
from tests.support import golden_files

# Patterns that each match a key of every file of a kind -> the cases of such a file.
KINDS = {
  ('param/*', 'input/x', 'output/*eps*/*'): forward.model_cases,
  ('param/*', 'input/x', 'output/iw/*'): forward.model_cases,
  ('param/*', 'input/x', 'output/generate_from_latents*'): forward.model_cases,
  ('param/*', 'input/x', 'output/interpolate_*'): forward.model_cases,
  ('param/*', 'input/x', 'traj*/loss'): forward.model_cases,
  ('param/*', 'input/x', 'grad/*'): forward.model_cases,
  **dict.fromkeys(heads.OFFICIAL_KEYS, heads.official_cases),
  **dict.fromkeys(heads.SEED_KEYS, heads.seed_cases),
  ('output/*',): pieces.piece_cases,
}

# Checks of every run: a pass with gradients of one reference, a trajectory of the other, pieces.
QUICK = (
  'official_cifar10_nf1_5bit.npz-inputs',
  'official_heads.npz-*',
  'official_misc.npz-*',
  'seed_gaussian.npz-inputs',
  'seed_gaussian.npz-traj_eps0_*',
  'seed_heads.npz-*',
)


@pytest.mark.parametrize('check', golden_files.checks('nvae', KINDS, QUICK))
def test_golden(check):
  check()
