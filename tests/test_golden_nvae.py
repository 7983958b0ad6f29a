"""NVAE against stored results of its two reference implementations.

Files are found by `golden_files.find`; what is checked in a file follows from its keys, and every
size and option from its `config`, so files with other settings are checked just the same.
"""

import pytest

from tests.golden_checks.nvae import forward, heads, pieces
from tests.support import golden_files

# Patterns that each match a key of every file of a kind -> the cases of such a file.
KINDS = {
  ('param/*', 'output/train_eps*/recon_nats'): forward.model_cases,
  ('input/dmol_logits', 'output/normal_kl/kl'): heads.official_cases,
  ('input/mixture_params', 'output/kl_scheduler/multiplier'): heads.seed_cases,
  ('output/ar_mask_official/*', 'output/adamax/params'): pieces.piece_cases,
}


@pytest.mark.parametrize('check', golden_files.checks('nvae', KINDS))
def test_golden(check):
  check()
