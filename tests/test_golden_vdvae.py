"""VDVAE against stored results of its two reference implementations.

Files are found by `golden_files.find`; what is checked in a file follows from its keys, and every
size and option from its `config`, so files with other settings are checked just the same.
"""

import pytest

from tests.golden_checks.vdvae import pieces, port, presets, release, trajectory
from tests.support import golden_files

# Patterns that each match a key of every file of a kind -> the cases of such a file.
KINDS = {
  ('param/encoder.in_conv.weight', 'output/eps*/logits'): release.forward_cases,
  ('output/*/x_float', 'output/*/image'): release.sample_cases,
  ('param/encoder.in_conv.weight', 'output/traj/loss'): trajectory.release_cases,
  ('input/u_mixture', 'grad/logits'): pieces.dmol_cases,
  ('input/qm', 'output/kl'): pieces.primitive_cases,
  ('input/level', 'output/*/x_target'): pieces.preprocess_cases,
  ('output/valid_index_*',): pieces.split_cases,
  ('valid/*', 'invalid/*', 'width/*'): pieces.parser_cases,
  ('*/hparams', '*/total_params'): presets.config_cases,
  ('shapes/*',): presets.shape_cases,
  ('param/encoder/Conv_0/kernel', 'output/eps*/px_z'): port.forward_cases,
  ('param/encoder/Conv_0/kernel', 'output/traj/elbo_bpd'): trajectory.port_cases,
  ('input/logistic_noise', 'grad/logits'): port.dmol_cases,
  ('output/log1mexp',): port.primitive_cases,
}


@pytest.mark.parametrize('check', golden_files.checks('vdvae', KINDS))
def test_golden(check):
  check()
