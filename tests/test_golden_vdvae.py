"""VDVAE against stored results of its two reference implementations.

Files are found by `golden_files.find`; what is checked in a file follows from its keys, and every
size and option from its `config`, so files with other settings are checked just the same.
"""

import pytest

from tests.golden_checks.vdvae import pieces, port, presets, release, trajectory
from tests.support import golden_files

# Patterns that each match a key of every file of a kind -> the cases of such a file.
KINDS = {
  ('param/encoder.in_conv.weight', 'output/traj/*'): trajectory.release_cases,
  ('param/encoder.in_conv.weight', 'output/final_*'): trajectory.release_cases,
  ('param/encoder.in_conv.weight',): release.forward_cases,
  ('param/encoder/Conv_0/kernel', 'output/traj/*'): trajectory.port_cases,
  ('param/encoder/Conv_0/kernel', 'output/final_*'): trajectory.port_cases,
  ('param/encoder/Conv_0/kernel',): port.forward_cases,
  ('output/uncond*/*',): release.sample_cases,
  ('output/manual*/*',): release.sample_cases,
  ('input/logits', 'input/u_mixture'): pieces.dmol_cases,
  ('input/logits', 'output/nll_per_example_nats_per_dim'): pieces.dmol_cases,
  ('input/logits', 'input/x_target'): port.dmol_cases,
  ('input/logits', 'input/logistic_noise'): port.dmol_cases,
  ('output/log1mexp*',): port.primitive_cases,
  ('input/mu1', 'output/kl'): port.primitive_cases,
  ('output/gelu',): port.primitive_cases,
  ('input/level', 'output/*/x*'): pieces.preprocess_cases,
  ('config', 'output/*_index_*'): pieces.split_cases,
  **dict.fromkeys(pieces.PRIMITIVE_KEYS, pieces.primitive_cases),
  ('valid/*',): pieces.parser_cases,
  ('invalid/*',): pieces.parser_cases,
  ('width/*',): pieces.parser_cases,
  ('*/hparams',): presets.config_cases,
  ('shapes/*',): presets.shape_cases,
}

# Checks of every run: a pass with gradients and a trajectory of each reference; the pieces.
QUICK = (
  'data_splits.npz-cifar10',
  'dmol_*.npz-*',
  'forward_lowbit.npz-*',
  'jax_dmol_k2.npz-*',
  'jax_forward.npz-inputs',
  'jax_primitives.npz-*',
  'parser.json-*',
  'preprocess.npz-*',
  'primitives.npz-*',
  'sample_lowbit.npz-uncond_eps1*',
  'traj_fixed.npz-*',
)


@pytest.mark.parametrize('check', golden_files.checks('vdvae', KINDS, QUICK))
def test_golden(check):
  check()
