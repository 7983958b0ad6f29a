"""Clockwork VAE against stored results of its two reference implementations.

Files are found by `golden_files.find`; what is checked in a file follows from its keys, and every
size and option from its `config`, so files with other settings are checked just the same.
"""

import pytest

from tests.golden_checks.cwvae import forward, official, pieces, trajectory
from tests.support import golden_files

# Patterns that each match a key of every file of a kind -> the cases of such a file.
KINDS = {
  ('param/encoder/Conv_0/kernel', 'output/eps*/enc_level0'): forward.forward_cases,
  ('param/encoder/Conv_0/kernel', 'output/final_adam_mu/*'): trajectory.trajectory_cases,
  ('param/*/conv2d/kernel', 'output/default_eps*/loss'): official.official_cases,
  ('param_converted/*', 'output/intended/loss'): official.converted_cases,
  ('output/ssim', 'output/reset_mask_*'): pieces.evaluation_cases,
}


@pytest.mark.parametrize('check', golden_files.checks('cwvae', KINDS))
def test_golden(check):
  check()
