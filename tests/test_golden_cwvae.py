"""Clockwork VAE against stored results of its two reference implementations.

Files are found by `golden_files.find`; what is checked in a file follows from its keys, and every
size and option from its `config`, so files with other settings are checked just the same.
"""

import pytest

from tests.golden_checks.cwvae import forward, official, pieces, trajectory
from tests.support import golden_files

# Patterns that each match a key of every file of a kind -> the cases of such a file.
KINDS = {
  ('param/encoder/Conv_0/kernel', 'output/eps*/*'): forward.forward_cases,
  ('param/encoder/Conv_0/kernel', 'grad*/*'): forward.forward_cases,
  ('param/encoder/Conv_0/kernel', 'output/*'): trajectory.trajectory_cases,
  ('param/*/conv2d/kernel',): official.official_cases,
  ('param_converted/*',): official.converted_cases,
  ('grad_intended/*',): official.converted_cases,
  ('grad_reference/*',): official.converted_cases,
  ('output/scaled_kl_per_level',): official.converted_cases,
  ('output/*',): pieces.evaluation_cases,
}

# Checks of every run: a pass with gradients and a trajectory of each reference; the pieces.
QUICK = (
  'case_d_1level.npz-eps1',
  'eval_and_likelihood.npz-*',
  'tf_official_3level_f2.npz-*default_eps1',
  'trajectory_noclip.npz-*',
)


@pytest.mark.parametrize('check', golden_files.checks('cwvae', KINDS, QUICK))
def test_golden(check):
  check()
