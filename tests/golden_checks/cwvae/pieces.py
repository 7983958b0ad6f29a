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


def evaluation_cases(golden: Golden) -> Cases:
  checks: dict[str, Callable[[Golden, str], None]] = {
    'scores': _check_scores,
    'pictures': _check_pictures,
    'video_layout': _check_layout,
    'like': _check_likelihood,
    'head': _check_head,
    'kl': _check_divergences,
  }
  cases: Cases = {name: functools.partial(check, golden) for name, check in checks.items()}
  named = {'grid_T': _check_grid, 'reset_mask_': _check_mask, 'split_T': _check_split}
  for name in golden.names_under('output'):
    for start, check in named.items():
      if name.startswith(start):
        cases[name] = functools.partial(check, golden, name)
  return cases


def _check_scores(golden: Golden) -> None:
  true, predicted = golden['input/gt_uint8'], golden['input/pred']
  found = open_loop.scores(true.astype(np.float32) / 255, predicted, open_loop.Options())
  curves = score_curves.moments(found['ssim'], axis=0)
  order = {name: np.argsort(found[name].mean(1)) for name in ('ssim', 'psnr')}
  found = {
    'ssim': found['ssim'],
    'psnr': found['psnr'],
    'ssim_range1_not_used_by_reference': found['ssim_range1'],
    'curve_mean_ssim': curves.mean,
    'curve_std_ssim': curves.deviation,
    'order_ssim': order['ssim'],
    'order_psnr': order['psnr'],
  }
  compare(
    found,
    {key: golden[f'output/{key}'] for key in found},
    lambda key: EXACT if key.startswith('order') else SCORES['psnr' if key == 'psnr' else 'ssim'],
  )
  # Taken as three samples of one video, the best is the last of the order.
  outcome = open_loop.Outcome(true[0, :0], true[0], predicted, found, {})
  for name, ranks in order.items():
    assert outcome.best(name) == ranks[-1]


def _check_pictures(golden: Golden) -> None:
  pairs = {
    'pred_uint8': golden['input/pred'],
    'gt_roundtrip_uint8': golden['input/gt_uint8'].astype(np.float32) / 255,
  }
  for name, frames in pairs.items():
    golden_files.compare_images(film_strips.to_uint8(frames), golden[f'output/{name}'])


def _check_layout(golden: Golden) -> None:
  (name,) = [n for n in golden.names_under('output') if n.startswith('video_layout')]
  stride, frames, most = map(
    int, re.fullmatch(r'video_layout_stride(\d+)_first(\d+)frames_maxbatch(\d+)', name).groups()
  )
  part = np.s_[:most, :frames, ::stride, ::stride]
  true = golden['input/gt_uint8'][part].astype(np.float32) / 255
  films = film_strips.compared(true, golden['input/pred'][part])
  side_by_side = np.concatenate(list(films), axis=2)  # [T, 3 H, N W, C]
  golden_files.compare_images(side_by_side.transpose(0, 3, 1, 2), golden[f'output/{name}'])


def _check_grid(golden: Golden, name: str) -> None:
  frames = golden[f'input/{name.replace("grid_", "grid_frames_")}']
  picture = film_strips.strips(frames, strict_reference=len(frames) > film_strips.STRIP)
  expected = golden[f'output/{name}']
  if len(frames) <= film_strips.STRIP:
    np.testing.assert_array_equal(film_strips.strips(frames, strict_reference=True), picture)
  compare({'grid': picture[..., 0]}, {'grid': expected}, lambda _: EXACT)
  # Ours begins with the same lines, and loses no frame.
  whole = film_strips.strips(frames)
  np.testing.assert_array_equal(whole[: len(expected), :, 0], expected)
  assert whole.shape[0] == -(-len(frames) // film_strips.STRIP) * frames.shape[1]


def _check_likelihood(golden: Golden) -> None:
  x = golden['input/like_x_uint8'].astype(np.float32) / 255
  mean = jnp.tanh(golden['input/like_logits'])
  found: dict[str, Any] = {'like_mean': mean}
  for name in golden.names_under('output'):
    if match := re.fullmatch(r'like_logprob_sd([\d.]+)', name):
      log_prob = distributions.normal_log_prob(x, mean, float(match[1]))
      found[name] = log_prob.sum((1, 2, 3, 4))
      found[f'like_logprob_per_frame_sd{match[1]}'] = log_prob.sum((2, 3, 4))
  expected = {key: value for key, value in golden.under('output').items() if key[:5] == 'like_'}
  compare(found, expected, lambda key: networks.FEATURES if key == 'like_mean' else networks.SUM)


def _check_head(golden: Golden) -> None:
  """Of the deviations; the head of the means beside it is of no importance here."""
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
  found = {'std': cells.distribution(rssm, raw).std}
  compare(found, {'std': golden['output/head_stddev']}, lambda _: networks.FEATURES)


def _check_divergences(golden: Golden) -> None:
  q, p = (
    distributions.Normal(golden[f'input/kl_{side}_mean'], jnp.log(golden[f'input/kl_{side}_std']))
    for side in 'qp'
  )
  compare({'kl': q.kl(p).sum(-1)}, {'kl': golden['output/kl']}, lambda _: networks.FEATURES)
  expected = {'entropy': golden['output/entropy_q'].sum(1)}
  compare({'entropy': objective.entropy(q)}, expected, lambda _: networks.FEATURES)


def _check_mask(golden: Golden, name: str) -> None:
  factor, length, level = map(
    int, re.fullmatch(r'reset_mask_f(\d+)_T(\d+)_level(\d+)', name).groups()
  )
  same = f'reset_mask_f{factor}_T{length}_level'
  levels = sum(other.startswith(same) for other in golden.names_under('output'))
  lengths = [-(-length // factor**i) for i in range(levels)]
  found = network.reset_masks('reference', factor, lengths)[level]
  compare({name: found}, {name: golden[f'output/{name}']}, lambda _: EXACT)


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
  found = np.stack([start, start + piece], axis=1)
  compare({name: found}, {name: golden[f'output/{name}']}, lambda _: EXACT)
