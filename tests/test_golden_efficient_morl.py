"""EfficientMORL and its Slot Attention baseline against stored results of their reference.

Files are found by `golden_files.find`; what is checked in a file follows from its keys, and every
size and option from its `config`, so files with other settings are checked just the same.
"""

import pytest

from tests.golden_checks.efficient_morl import forward, pieces, scores, trajectory
from tests.support import golden_files

# Patterns that each match a key of every file of a kind -> the cases of such a file.
KINDS = {
  ('param/hvae_networks.*', 'output/*/eps*/total_loss'): forward.forward_cases,
  ('config', 'grad/hvae_networks.*'): forward.gradient_cases,
  ('param/init_slots', 'output/eps*/total_loss'): pieces.baseline_cases,
  ('param/*/decode.0.weight', 'grad/*/z'): pieces.decoder_cases,
  ('input/softplus_raw', 'output/lik/*'): pieces.component_cases,
  ('output/eps*/lr', 'input/lr_table_step'): trajectory.trajectory_cases,
  ('input/ari/*', 'output/dci/*'): scores.metric_cases,
  ('output/eps*/activeness', 'output/eps*/rinfo/*'): scores.evaluation_cases,
  ('input/clevr_image_u8', 'input/tetrominoes_example_u8'): scores.preprocess_cases,
}


@pytest.mark.parametrize('check', golden_files.checks('efficient_morl', KINDS))
def test_golden(check):
  check()
