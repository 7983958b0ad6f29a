"""Efficient-VDVAE against stored results of its reference implementation.

Files are found by `golden_files.find`; what is checked in a file follows from its keys, and every
size and option from its `config`, so files with other settings are checked just the same.
"""

import pytest

from tests.golden_checks.efficient_vdvae import (
  forward,
  heads,
  pieces,
  rates,
  torch_form,
  trajectory,
)
from tests.support import golden_files

# Patterns that each match a key of every file of a kind -> the cases of such a file.
KINDS = {
  ('param/bottom_up/input_conv/conv/kernel', 'input/batch_sequence'): trajectory.trajectory_cases,
  ('param/bottom_up/input_conv/conv/kernel', 'output/*'): forward.forward_cases,
  ('param/bottom_up/input_conv/conv/kernel', 'grad/*'): forward.forward_cases,
  ('param/bottom_up.input_conv.weight',): torch_form.torch_cases,
  ('output/torch_lr_cosine',): torch_form.torch_cases,
  ('output/adamax_params',): torch_form.torch_cases,
  ('input/*/logits', 'output/*/*'): heads.head_cases,
  ('input/*/logits', 'grad/*/*'): heads.head_cases,
  **dict.fromkeys(rates.SCHEDULE_KEYS, rates.schedule_cases),
  ('input/grads/*', 'output/*_wd?/*'): rates.optimizer_cases,
  ('output/ssim_*',): pieces.ssim_cases,
  ('output/kernel',): pieces.ssim_cases,
  **dict.fromkeys(pieces.DATA_KEYS, pieces.data_cases),
}

# Checks of every run: a pass with gradients and a trajectory of each reference; the pieces.
QUICK = (
  'data_and_masks.npz-*',
  'forward_rgb5_logstd_residual.npz-eps1*',
  'forward_rgb5_logstd_residual.npz-grad',
  'forward_rgb5_logstd_residual.npz-inputs',
  'likelihood_heads.npz-bernoulli*',
  'likelihood_heads.npz-c_*',
  'optimizers.npz-*',
  'schedules.npz-*',
  'ssim.npz-*',
  'torch_import_rgb8.npz-[aci]*',
  'train_trajectory.npz-*',
)


@pytest.mark.parametrize('check', golden_files.checks('efficient_vdvae', KINDS, QUICK))
def test_golden(check):
  check()
