"""EfficientMORL and its Slot Attention baseline against stored results of their reference.

Files are found by `golden_files.find`; what is checked in a file follows from its keys, and every
size and option from its `config`, so files with other settings are checked just the same.
"""

import pytest

from tests.golden_checks.efficient_morl import forward, pieces, scores, trajectory
from tests.support import golden_files

# Patterns that each match a key of every file of a kind -> the cases of such a file.
KINDS = {
  ('param/hvae_networks.*', 'output/*/eps*/*'): forward.forward_cases,
  ('param/hvae_networks.*', 'gradsum/*'): forward.forward_cases,
  ('config', 'grad/hvae_networks.*'): forward.gradient_cases,
  ('param/init_slots', 'output/eps*/*'): pieces.baseline_cases,
  ('param/init_slots', 'grad*/*'): pieces.baseline_cases,
  ('param/*/decode.0.weight', 'input/*/z'): pieces.decoder_cases,
  ('output/eps*/lr',): trajectory.trajectory_cases,
  ('output/eps*/final/*',): trajectory.trajectory_cases,
  ('output/lr_table_lr',): trajectory.trajectory_cases,
  ('output/geco_*',): trajectory.trajectory_cases,
  **dict.fromkeys(pieces.COMPONENT_KEYS, pieces.component_cases),
  **dict.fromkeys(scores.METRIC_KEYS, scores.metric_cases),
  ('input/image_u8_nchw', 'output/eps*/*'): scores.evaluation_cases,
  ('output/clevr-*',): scores.preprocess_cases,
  ('output/mask_cropped_ids',): scores.preprocess_cases,
  ('output/pred_mask_resized_*',): scores.preprocess_cases,
  ('input/tetrominoes_example_u8',): scores.preprocess_cases,
}

# Checks of every run: a pass with gradients and a trajectory of each reference; the pieces.
QUICK = (
  'components.npz-*',
  'decoders.npz-*',
  'metrics.npz-[aic]*',
  'preprocess.npz-*',
  'slot_attention.npz-epsd*',
  'small_gaussian.npz-rpp-epsd*',
  'small_gaussian_grads.npz-*',
  'trajectory.npz-epsd*',
  'trajectory.npz-[gl]*',
)


@pytest.mark.parametrize('check', golden_files.checks('efficient_morl', KINDS, QUICK))
def test_golden(check):
  check()
