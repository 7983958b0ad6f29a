"""Scores and pictures of predictions, likelihood, divergences, reset masks and cutting."""

from collections.abc import Callable
import functools
import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from hvae_tpu.data import items
from hvae_tpu.evals import open_loop
from hvae_tpu.figures import film_strips
from hvae_tpu.metrics import score_curves
from hvae_tpu.models.cwvae import cells, network, objective
from hvae_tpu.nn import distributions
from tests.golden_checks.cwvae import networks
from tests.golden_checks.cwvae.networks import Cases
from tests.support import golden_files
from tests.support.golden_files import EXACT, Golden, Tolerance, compare

SCORES = {'ssim': Tolerance(0, 1e-5), 'psnr': Tolerance(0, 1e-3)}


# Beginning of a result's name -> the check that it belongs to.
CHECKS = {
  'ssim': 'scores',
  'psnr': 'scores',
  'order_': 'scores',
  'curve_': 'scores',
  'pred_uint8': 'pictures',
  'gt_roundtrip_uint8': 'pictures',
  'like_': 'likelihood',
  'head_stddev': 'head',
  'kl': 'divergence',
  'entropy_q': 'entropy',
  # These have a check for each result.
  'video_layout_': '',
  'grid_T': '',
  'reset_mask_': '',
  'split_T': '',
}


def evaluation_cases(golden: Golden) -> Cases:
  together: dict[str, Callable[[Golden], None]] = {
    'scores': _check_scores,
    'pictures': _check_pictures,
    'likelihood': _check_likelihood,
    'head': _check_head,
    'divergence': _check_divergence,
    'entropy': _check_entropy,
  }
  one_by_one: dict[str, Callable[[Golden, str], None]] = {
    'video_layout_': _check_layout,
    'grid_T': _check_grid,
    'reset_mask_': _check_mask,
    'split_T': _check_split,
  }
  cases: Cases = {}
  for name in golden.names_under('output'):
    start = next((start for start in CHECKS if name.startswith(start)), None)
    assert start, f'nothing checks output/{name}'
    if check := CHECKS[start]:
      cases[check] = functools.partial(together[check], golden)
    else:
      cases[name] = functools.partial(one_by_one[start], golden, name)
  return cases


def _check_scores(golden: Golden) -> None:
  true, predicted = golden['input/gt_uint8'], golden['input/pred']
  scores = open_loop.scores(true.astype(np.float32) / 255, predicted, open_loop.Options())
  curves = score_curves.moments(scores['ssim'], axis=0)
  order = {name: np.argsort(scores[name].mean(1)) for name in ('ssim', 'psnr')}
  results = {
    'ssim': scores['ssim'],
    'psnr': scores['psnr'],
    'ssim_range1_not_used_by_reference': scores['ssim_range1'],
    'curve_mean_ssim': curves.mean,
    'curve_std_ssim': curves.deviation,
    'order_ssim': order['ssim'],
    'order_psnr': order['psnr'],
  }
  compare(
    results,
    golden_files.select(golden, results),
    lambda key: EXACT if key.startswith('order') else SCORES['psnr' if key == 'psnr' else 'ssim'],
  )
  # Taken as samples of one video, the best is the last of the order.
  outcome = open_loop.Outcome(true[0, :0], true[0], predicted, results, {})
  for name, ranks in order.items():
    assert outcome.best(name) == ranks[-1]


def _check_pictures(golden: Golden) -> None:
  frames = {
    'pred_uint8': lambda: golden['input/pred'],
    'gt_roundtrip_uint8': lambda: golden['input/gt_uint8'].astype(np.float32) / 255,
  }
  for name, expected in golden_files.select(golden, frames).items():
    golden_files.compare_images(film_strips.to_uint8(frames[name]()), expected)


def _check_layout(golden: Golden, name: str) -> None:
  stride, frames, most = map(
    int, re.fullmatch(r'video_layout_stride(\d+)_first(\d+)frames_maxbatch(\d+)', name).groups()
  )
  part = np.s_[:most, :frames, ::stride, ::stride]
  true = golden['input/gt_uint8'][part].astype(np.float32) / 255
  films = film_strips.compared(true, golden['input/pred'][part])
  side_by_side = np.concatenate(list(films), axis=2)  # [T, 3 H, N W, C]
  golden_files.compare_images(side_by_side.transpose(0, 3, 1, 2), golden[f'output/{name}'])


def _check_grid(golden: Golden, name: str) -> None:
  """Checks a grid of frames; the reference writes one of grey frames without a channel axis."""
  frames = golden[f'input/{name.replace("grid_", "grid_frames_")}']
  expected = golden[f'output/{name}']
  expected = expected[..., None] if expected.ndim == 2 else expected
  picture = film_strips.strips(frames, strict_reference=len(frames) > film_strips.STRIP)
  if len(frames) <= film_strips.STRIP:
    np.testing.assert_array_equal(film_strips.strips(frames, strict_reference=True), picture)
  compare({'grid': picture}, {'grid': expected}, lambda _: EXACT)
  # Ours begins with the same lines, and loses no frame.
  whole = film_strips.strips(frames)
  np.testing.assert_array_equal(whole[: len(expected)], expected)
  assert whole.shape[0] == -(-len(frames) // film_strips.STRIP) * frames.shape[1]


def _check_likelihood(golden: Golden) -> None:
  x = golden['input/like_x_uint8'].astype(np.float32) / 255
  mean = jnp.tanh(golden['input/like_logits'])
  results: dict[str, Any] = {'like_mean': mean}
  for name in golden.names_under('output'):
    if match := re.fullmatch(r'like_logprob_sd([\d.]+)', name):
      log_prob = distributions.normal_log_prob(x, mean, float(match[1]))
      results[name] = log_prob.sum((1, 2, 3, 4))
      results[f'like_logprob_per_frame_sd{match[1]}'] = log_prob.sum((2, 3, 4))
  expected = {key: value for key, value in golden.under('output').items() if key[:5] == 'like_'}
  compare(results, expected, lambda key: networks.FEATURES if key == 'like_mean' else networks.SUM)


def _check_head(golden: Golden) -> None:
  """Checks the deviations; the head of the means beside it does not matter here."""
  kernel, bias = golden['input/head_kernel'], golden['input/head_bias']
  rssm = networks.model_of({'channels': 1}).rssm
  rssm = rssm._replace(
    stoch=kernel.shape[1], embed=kernel.shape[0], min_std=golden.config['min_stddev']
  )
  head = cells.Head(rssm)
  params = {
    'mean': {'kernel': jnp.zeros_like(kernel), 'bias': jnp.zeros_like(bias)},
    'std': {'kernel': kernel, 'bias': bias},
  }
  joint = head.apply({'params': params})
  raw = golden['input/head_h'] @ joint[0] + joint[1]
  results = {'std': cells.distribution(rssm, raw).std}
  compare(results, {'std': golden['output/head_stddev']}, lambda _: networks.FEATURES)


def _normal(golden: Golden, side: str) -> distributions.Normal:
  std = golden[f'input/kl_{side}_std']
  return distributions.Normal(golden[f'input/kl_{side}_mean'], jnp.log(std))


def _check_divergence(golden: Golden) -> None:
  kl = _normal(golden, 'q').kl(_normal(golden, 'p')).sum(-1)
  compare({'kl': kl}, {'kl': golden['output/kl']}, lambda _: networks.FEATURES)


def _check_entropy(golden: Golden) -> None:
  expected = {'entropy': golden['output/entropy_q'].sum(1)}
  entropy = objective.entropy(_normal(golden, 'q'))
  compare({'entropy': entropy}, expected, lambda _: networks.FEATURES)


def _check_mask(golden: Golden, name: str) -> None:
  factor, length, level = map(
    int, re.fullmatch(r'reset_mask_f(\d+)_T(\d+)_level(\d+)', name).groups()
  )
  start = f'reset_mask_f{factor}_T{length}_level'
  same = [other for other in golden.names_under('output') if other.startswith(start)]
  top = max(int(other.removeprefix(start)) for other in same)
  lengths = [-(-length // factor**i) for i in range(top + 1)]
  results = network.reset_masks('reference', factor, lengths)[level]
  compare({name: results}, {name: golden[f'output/{name}']}, lambda _: EXACT)


class _Videos:
  """A data set of one video of `length` frames, a frame a record."""

  def __init__(self, length: int):
    frames = {'video': {'chunk': 1, 'frames': {'train': length}}}
    self.card = {'name': 'one', 'details': frames, 'splits': {'train': {'count': length}}}
    self.length = length

  def indices(self, view: str) -> np.ndarray:
    return np.arange(self.length)

  def view(self, name: str) -> dict[str, str]:
    return {'split': name}


def _check_split(golden: Golden, name: str) -> None:
  length, piece = map(int, re.fullmatch(r'split_T(\d+)_len(\d+)', name).groups())
  start = items.items_of(_Videos(length), 'train', piece).start
  results = np.stack([start, start + piece], axis=1)
  compare({name: results}, {name: golden[f'output/{name}']}, lambda _: EXACT)
