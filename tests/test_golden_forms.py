"""Golden files of other forms: parts of the stored ones, other sizes, altered numbers."""

from collections.abc import Callable
import fnmatch
import functools
import importlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden_checks.nvae import networks as nvae
from tests.support import golden_files, kinks
from tests.support.golden_files import Golden

SYSTEMS = ('cwvae', 'efficient_morl', 'efficient_vdvae', 'nvae', 'vdvae')
FAILING = {'unknown', 'unreadable'}


def kinds_of(system: str) -> golden_files.Kinds:
  return importlib.import_module(f'tests.test_golden_{system}').KINDS


def stored(system: str, name: str) -> Golden:
  return golden_files.read(golden_files.COMMITTED / system / name)


@functools.cache
def arrays_of(golden: Golden) -> dict[str, Any]:
  return {key: golden[key] for key in golden.keys}


def copy_of(
  golden: Golden, keep: Callable[[str], bool] = lambda key: True, **changes: Any
) -> Golden:
  """Returns a copy of a file with part of its keys and with changed arrays."""
  arrays = {key: value for key, value in arrays_of(golden).items() if keep(key)}
  return Golden(golden.path, arrays | changes)


def cases_of(system: str, golden: Golden) -> dict[str, Callable[[], None]]:
  return golden_files.cases(golden, kinds_of(system))


ARRAYS = [
  pytest.param(path.parent.name, path.name, id=f'{path.parent.name}-{path.stem}')
  for path in sorted(golden_files.COMMITTED.glob('*/*.npz'))
]


def results_of(golden: Golden) -> list[str]:
  """Returns the beginnings of the keys of results; each may stand alone in a file."""
  starts = {f'output/{name}' for name in golden.names_under('output')}
  starts |= {key.split('/')[0] for key in golden.keys if key.startswith('grad')}
  return sorted(starts)


def belongs(key: str, start: str) -> bool:
  return key == start or key.startswith(f'{start}/')


@pytest.mark.parametrize(('system', 'name'), ARRAYS)
def test_every_result_is_recognised_alone(system, name):
  golden = stored(system, name)
  results = results_of(golden)
  for start in results:
    others = [other for other in results if other != start]
    part = copy_of(golden, lambda key, others=others: not any(belongs(key, o) for o in others))
    assert not FAILING & set(cases_of(system, part)), start


def test_unknown_results_fail():
  golden = stored('cwvae', 'eval_and_likelihood.npz')
  unknown = copy_of(golden, lambda key: key == 'config', **{'output/nothing': np.zeros(3)})
  for system in SYSTEMS:
    (check,) = cases_of(system, unknown).values()
    with pytest.raises((pytest.fail.Exception, ValueError)):
      check()


# One cheap check of many kinds: file, check, and keys whose numbers it compares.
ALTERED = [
  ('cwvae', 'eval_and_likelihood.npz', 'likelihood', 'output/like_logprob_sd0.4'),
  ('cwvae', 'eval_and_likelihood.npz', 'scores', 'output/psnr'),
  ('cwvae', 'eval_and_likelihood.npz', 'grid_T51', 'output/grid_T51'),
  ('cwvae', 'eval_and_likelihood.npz', 'head', 'output/head_stddev'),
  ('cwvae', 'eval_and_likelihood.npz', 'entropy', 'output/entropy_q'),
  ('efficient_morl', 'components.npz', 'kl', 'output/kl/p_q'),
  ('efficient_morl', 'components.npz', 'dual', 'grad/dual_gru/h'),
  ('efficient_morl', 'decoders.npz', 'small', 'output/small/rgb'),
  ('efficient_morl', 'decoders.npz', 'small-grad', 'grad/small/z'),
  ('efficient_morl', 'metrics.npz', 'ari_random', 'output/ari/random/fg'),
  ('efficient_morl', 'metrics.npz', 'clevrtex', 'output/clevrtex/mIoU'),
  ('efficient_morl', 'preprocess.npz', 'masks', 'output/mask_cropped_ids'),
  ('efficient_morl', 'trajectory.npz', 'lr_table', 'output/lr_table_lr'),
  ('efficient_vdvae', 'schedules.npz', 'lr_noam', 'output/lr_noam'),
  ('efficient_vdvae', 'schedules.npz', 'gamma_scaled1_step10', 'output/gamma_scaled1_step10_grad'),
  ('efficient_vdvae', 'optimizers.npz', 'Adamax_wd1', 'output/Adamax_wd1/block/conv/kernel'),
  ('efficient_vdvae', 'ssim.npz', 'kernel', 'output/kernel'),
  ('efficient_vdvae', 'data_and_masks.npz', 'normalized_bits5', 'output/normalized_bits5'),
  ('nvae', 'official_heads.npz', 'normal_kl', 'output/normal_kl/kl'),
  ('nvae', 'seed_heads.npz', 'reg', 'output/reg/grad_weight'),
  ('nvae', 'official_misc.npz', 'adamax', 'output/adamax/params'),
  ('vdvae', 'dmol_5bit_k1.npz', 'log_prob', 'output/loglik_per_pixel_nats'),
  ('vdvae', 'jax_dmol_k2.npz', 'samples', 'output/sample_float'),
  ('vdvae', 'primitives.npz', 'kl', 'output/kl'),
  ('vdvae', 'preprocess.npz', 'cifar10', 'output/cifar10/x'),
]


@pytest.mark.parametrize(('system', 'name', 'case', 'key'), ALTERED)
def test_an_altered_number_fails(system, name, case, key):
  golden = stored(system, name)
  cases_of(system, golden)[case]()
  array = golden[key].copy()
  array.flat[array.size // 2] += max(abs(array.flat[array.size // 2]) * 0.05, 0.05)
  if array.dtype.kind in 'iu':
    array.flat[array.size // 2] = golden[key].flat[array.size // 2] ^ 3
  with pytest.raises(AssertionError):
    cases_of(system, copy_of(golden, **{key: array}))[case]()


# Parts of files: their keys, and the checks that remain.
PARTS = [
  ('cwvae', 'tf_official_3level_f2.npz', '*adam_keras*', 'adam_keras'),
  ('cwvae', 'trajectory_noclip.npz', '*final_adam_nu*', 'final_adam_nu'),
  ('efficient_morl', 'preprocess.npz', '*tetrominoes*', 'tetrominoes'),
  ('efficient_morl', 'components.npz', '*softplus_raw', 'scale'),
  (
    'efficient_morl',
    'metrics.npz',
    '*/dci/*',
    'dci_reference dci_per_factor_model dci_importance_only',
  ),
  ('efficient_morl', 'trajectory.npz', 'output/geco_*', 'geco'),
  ('efficient_vdvae', 'train_trajectory.npz', 'output/final_ema/*', 'final_ema'),
  ('efficient_vdvae', 'torch_import_rgb8.npz', 'output/torch_lr_cosine', 'cosine'),
  ('nvae', 'official_cifar10_nf1_5bit.npz', 'traj/final_param/*', 'traj_final'),
  ('nvae', 'official_cifar10_nf1_5bit.npz', 'grad/*', 'grad'),
  ('vdvae', 'traj_fixed.npz', 'output/adam_*', 'adam'),
  ('vdvae', 'dmol_8bit_k2.npz', 'output/sample_*', 'samples'),
]


@pytest.mark.parametrize(('system', 'name', 'left_out', 'missing'), PARTS)
def test_a_part_of_a_file_has_the_other_checks(system, name, left_out, missing):
  golden = stored(system, name)
  part = copy_of(golden, lambda key: not fnmatch.fnmatch(key, left_out))
  assert set(cases_of(system, golden)) - set(cases_of(system, part)) == set(missing.split())


def test_clevr_is_checked_without_tetrominoes():
  golden = stored('efficient_morl', 'preprocess.npz')
  clevr = cases_of('efficient_morl', copy_of(golden, lambda key: 'tetrominoes' not in key))
  assert set(clevr) == {'clevr-small', 'clevr-large', 'masks', 'pred_mask_resized_4x'}
  for check in clevr.values():
    check()


def test_grids_of_colour_frames():
  golden = stored('cwvae', 'eval_and_likelihood.npz')
  frames = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3), np.uint8)
  grid = np.zeros((5, 7 * 5 - 1, 3), np.uint8)  # a black column between frames
  for i, frame in enumerate(frames):
    grid[:, i * 5 : i * 5 + 4] = frame
  changes = {'input/grid_frames_T7': frames, 'output/grid_T7': grid}
  cases_of('cwvae', copy_of(golden, **changes))['grid_T7']()
  grid[0, 0, 2] ^= 1
  with pytest.raises(AssertionError):
    cases_of('cwvae', copy_of(golden, **changes))['grid_T7']()


@pytest.mark.parametrize('side', [16, 64])
def test_nvae_takes_the_size_of_its_pictures_from_the_file(side):
  golden = stored('nvae', 'official_cifar10_nf1_5bit.npz')
  levels = np.random.default_rng(0).integers(0, 32, (2, 3, side, side))
  image = (levels * 8 + 4).astype(np.uint8)
  x = np.float32(levels) / 31
  other = copy_of(golden, **{'input/x_uint8': image, 'input/x': x})
  assert nvae.model_of(nvae.config_of(other)).image_size == side
  cases_of('nvae', other)['inputs']()


@pytest.mark.parametrize('system', SYSTEMS)
def test_quick_checks_exist_and_others_are_slow_unless_asked_for(system, monkeypatch):
  module = importlib.import_module(f'tests.test_golden_{system}')

  def checks():
    parameters = golden_files.checks(system, module.KINDS, module.QUICK)
    return {p.id: [mark.name for mark in p.marks] for p in parameters}

  monkeypatch.setattr(golden_files, '_asked_for', False)
  monkeypatch.delenv('HVAE_GOLDEN_DIR', raising=False)
  quick = [re.sub('@[^-]*', '', name) for name, marks in checks().items() if not marks]
  assert {'slow'} == {mark for marks in checks().values() for mark in marks}
  for pattern in module.QUICK:
    assert fnmatch.filter(quick, pattern), pattern
  monkeypatch.setenv('HVAE_GOLDEN_DIR', str(golden_files.COMMITTED))
  assert not any(checks().values())


def relu_gradient(params: dict[str, Any], x: Any, scale: float = 1.0) -> dict[str, np.ndarray]:
  def loss(p):
    linear = x @ p['kernel'] + p['bias']
    return scale * (jax.nn.relu(linear) + linear).sum()

  return {name: np.asarray(value) for name, value in jax.grad(loss)(params).items()}


def test_only_a_crossed_kink_is_no_difference():
  """The last unit's input lies within rounding of zero, on either side."""
  x = jnp.ones((1, 2))
  params = {'kernel': jnp.array([[0.5, 0.25], [0.5, -0.25]]), 'bias': jnp.array([0.1, 1e-8])}
  crossed = params | {'bias': jnp.array([0.1, -1e-8])}
  ours = lambda moves: relu_gradient(kinks.move(params, moves), x)

  def differing(expected):
    tolerance = golden_files.Tolerance(1e-4, 0)
    differ = lambda grads: golden_files.differences(grads, expected, lambda _: tolerance)
    return set(differ(ours(()))), set(kinks.real_differences(differ, ours, ['bias']))

  assert differing(relu_gradient(params, x)) == (set(), set())
  assert differing(relu_gradient(crossed, x)) == ({'kernel', 'bias'}, set())
  # A wrong factor stays, whether a kink is crossed or not.
  for stored in (params, crossed):
    everything = {'kernel', 'bias'}
    assert differing(relu_gradient(stored, x, scale=1.01)) == (everything, everything)


def test_a_wrong_gradient_fails_beside_kinks():
  golden = stored('efficient_morl', 'decoders.npz')
  gradient = golden['grad/small/z'].copy()
  gradient[0] *= 1.01
  altered = cases_of('efficient_morl', copy_of(golden, **{'grad/small/z': gradient}))
  with pytest.raises(AssertionError, match='z: '):
    altered['small-grad']()
