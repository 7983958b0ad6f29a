"""Open-loop evaluation: scores, the best of several samples, chunks, and what a run stores."""

import csv
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import metrics

from configs import demo_moving_mnist
from hvae_tpu.errors import UserError
from hvae_tpu.evals import film_strips, frame_quality, open_loop
from hvae_tpu.modes import evaluate, train
from hvae_tpu.modes import open_loop as mode
from hvae_tpu.writing import encode_gif, side_by_side
from tests import moving_squares

RNG = jax.random.key(0)


class Counter:
  """Predicts, in the first sample of an example, its last context frame plus 8 for every frame."""

  cycle = 2

  def __init__(self):
    self.chunks = []

  def predict(self, params, state, batch, rng, context, carry, *, num, total):
    self.chunks.append((batch['video'].shape, num, total))
    start = jnp.zeros((), jnp.int32) if carry is None else carry
    steps = start + 1 + jnp.arange(num)
    last = batch['video'][:, -1:].astype(jnp.float32)
    wrong = jnp.arange(len(last)) % 2 * 50.0  # every second row is another sample
    frames = last + 8.0 * steps[:, None, None, None] + wrong[:, None, None, None, None]
    return frames / 255, start + num


def videos(starts, length=9):
  """Batches with one row per start value; a frame is 8 brighter than the one before."""
  frames = np.array(starts)[:, None] + 8 * np.arange(length)
  video = np.broadcast_to(frames[..., None, None, None], (*frames.shape, 16, 16, 1))
  ramp = np.arange(16, dtype=np.uint8)[:, None]  # so that similarity is defined
  video = (video + ramp).astype(np.uint8)
  return {'video': jnp.asarray(video), 'mask': jnp.asarray([s < 60 for s in starts])}


def evaluation(model, *batches, **options):
  read = lambda **_: (batch for batch in batches)
  options = dict(context=2, num_examples=3, num_samples=2, chunk=4) | options
  return open_loop.make(model, read, **options)({}, {}, 0, RNG)


def test_the_best_sample_counts():
  model = Counter()
  found = evaluation(model, videos([0, 10]), videos([20, 99]))
  assert found['ssim'] == pytest.approx(1) and np.isinf(found['psnr'])
  assert found['copy_last_ssim'] < 1 and found['copy_last_psnr'] < 40
  assert found['films'].shape == (3, 7, 48, 16, 1) and found['films'].dtype == np.uint8
  target, predicted, error = np.split(found['films'], 3, axis=2)
  np.testing.assert_array_equal(target, predicted)
  assert (error == 127).all()
  # Traced once for every length: the first chunk, those after it and the last.
  assert [(num, total) for _, num, total in model.chunks] == [(4, 7), (3, 7)]
  assert model.chunks[0][0] == (4, 2, 16, 16, 1)  # nothing but the context is handed over


def test_examples_are_counted():
  assert len(evaluation(Counter(), videos([0, 10]), videos([20, 30]))['films']) == 3
  assert len(evaluation(Counter(), videos([0, 10]), num_examples=9)['films']) == 2


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(chunk=3), r'3 frames at once \(open_loop.chunk\) must be a multiple of 2'),
    (dict(context=3), r'3 frames of context \(open_loop.context\) must be a multiple of 2'),
    (dict(context=10), 'sequences of 9 frames leave nothing to predict behind a context of 10'),
  ],
)
def test_refused(options, message):
  with pytest.raises(UserError, match=message):
    evaluation(Counter(), videos([0, 10]), **options)


def test_scores_are_those_of_the_library_and_of_the_formula():
  rng = np.random.default_rng(0)
  true, found = rng.random((2, 3, 16, 16, 3), np.float32), rng.random((3, 16, 16, 3), np.float32)
  ssim = frame_quality.similarity(true, found, 2.0)
  psnr = frame_quality.peak_ratio(true, found, 1.0)
  assert ssim.shape == psnr.shape == (2, 3)
  for i, j in np.ndindex(2, 3):
    each = [
      metrics.structural_similarity(
        true[i, j, ..., c].astype(float), found[j, ..., c].astype(float), data_range=2.0
      )
      for c in range(3)
    ]
    assert ssim[i, j] == pytest.approx(np.mean(each), abs=1e-9)
    mse = np.square(true[i, j] - found[j], dtype=np.float64).mean((0, 1))
    assert psnr[i, j] == pytest.approx(np.mean(-10 * np.log10(mse)), abs=1e-5)


@pytest.mark.parametrize(('length', 'lines'), [(1, 1), (49, 1), (50, 1), (51, 2), (100, 2)])
def test_strips_lose_no_frame(length, lines):
  frames = np.arange(1, length + 1, dtype=np.uint8)[:, None, None, None] * np.ones((4, 3, 1), 'u1')
  picture = film_strips.strips(frames)
  width = min(length, 50)
  assert picture.shape == (4 * lines, 4 * width - 1, 1)
  shown = [picture[4 * (i // 50), 4 * (i % 50), 0] for i in range(length)]
  assert shown == list(range(1, length + 1))
  assert not picture[:, 3::4].any()
  strict = film_strips.strips(frames, strict_reference=True)
  assert len(strict) == 4 * max(lines - 1, 1)


def test_films_are_shown_side_by_side():
  films = np.zeros((2, 3, 4, 5, 1), np.uint8)
  films[1] = 9
  frames = side_by_side(films)
  assert frames.shape == (3, 4, 10, 1) and (frames[:, :, 5:] == 9).all()
  assert encode_gif(frames, 10).startswith(b'GIF8')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp('videos')
  moving_squares.write(folder)
  return folder


def test_life_of_a_run(root, tmp_path, capsys):
  """Two epochs of 24 pieces; two predictions of each of two examples."""
  config = demo_moving_mnist.get_config('cwvae,debug')
  config.data.root = str(root)
  config.train.num_epochs = 2
  config.open_loop.num_samples = 2
  config.evals.open_loop.every = 6
  config.evals.elbo.every = 0
  assert train.run(config, tmp_path, 'latest') == 0
  said = 'train.num_epochs=2 of 24 examples in batches of 8: train.num_steps=6,'
  assert said in capsys.readouterr().out
  assert (tmp_path / 'train' / 'open_loop' / 'films-6.gif').read_bytes().startswith(b'GIF8')

  assert mode.run(config, tmp_path, 'latest') == 0
  folder = tmp_path / 'open_loop' / 'test-6-ema'
  samples = ('random_sample_1', 'random_sample_2', 'best_ssim_sample', 'best_psnr_sample')
  for i in range(2):
    for name in (*samples, f'../sample{i}_gt/gt_pred'):
      frames = np.load(folder / f'sample{i}' / f'{name}.npz')['arr_0']
      assert frames.shape == (12, 64, 64, 1) and frames.dtype == np.uint8
      assert (folder / f'sample{i}' / f'{name}.png').exists()
    assert np.load(folder / f'sample{i}_gt' / 'gt_ctx.npz')['arr_0'].shape == (8, 64, 64, 1)
  rows = list(csv.DictReader(open(folder / 'per_frame.csv')))
  assert len(rows) == 12 and rows[3]['frame'] == '3'
  for name in ('ssim', 'psnr'):
    mean = np.load(folder / f'{name}_mean.npz')['arr_0']
    assert mean.shape == np.load(folder / f'{name}_stddev.npz')['arr_0'].shape == (12,)
    assert float(rows[3][f'{name}_mean']) == pytest.approx(mean[3])
    assert (folder / f'{name}_range.png').exists()
  assert (folder / 'films.gif').exists() and not (folder / 'sample2').exists()

  config.eval.names = ('elbo', 'open_loop')
  assert evaluate.run(config, tmp_path, 'latest') == 0
  out = capsys.readouterr().out
  assert 'elbo/neg_elbo_per_frame' in out and 'open_loop/psnr' in out
  assert list((tmp_path / 'eval').glob('*open_loop-films.gif'))


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(batch_size=4), 'config.evals.open_loop.batch_size=4 .* multiple of the 8 devices'),
    (dict(seq_len=30), '30 frames .* longer than the 20 frames of the sequences'),
    (dict(context=7), '7 frames of context .* must be a multiple of 4'),
  ],
  ids=str,
)
def test_unfit_sizes_are_told_before_the_first_step(root, tmp_path, options, message):
  config = demo_moving_mnist.get_config('cwvae,debug')
  config.data.root = str(root)
  config.evals.open_loop.update(options)
  with pytest.raises(UserError, match=message):
    train.run(config, tmp_path, 'latest')
  assert not list(tmp_path.glob('checkpoints/*'))


def test_only_models_of_video_predict(root, tmp_path, monkeypatch):
  config = demo_moving_mnist.get_config('cwvae,debug')
  still = types.SimpleNamespace(model=object(), workdir=tmp_path)
  monkeypatch.setattr(mode.runs, 'open_run', lambda *_: still)
  with pytest.raises(UserError, match='--mode=open_loop needs predict, which cwvae lacks'):
    mode.run(config, tmp_path, 'latest')
