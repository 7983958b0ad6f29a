"""Open-loop evaluation: scores, the best of several samples, chunks, and stored files."""

import csv
import json
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import demo_moving_mnist
from hvae_tpu import evals
from hvae_tpu.errors import UserError
from hvae_tpu.evals import open_loop
from hvae_tpu.modes import evaluate, train
from hvae_tpu.modes import open_loop as mode
from hvae_tpu.runs import restore
from tests.support import moving_squares, trained_runs

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
  read = lambda **_: (dict(batch) for batch in batches)
  options = dict(context=2, num_examples=3, num_samples=2, chunk=4) | options
  return open_loop.make(model, read, open_loop.Options(**options))({}, {}, 0, RNG)


def test_the_best_sample_counts():
  model = Counter()
  results = evaluation(model, videos([0, 10]), videos([20, 99]))
  assert results['ssim'] == pytest.approx(1) and results['num_examples'] == 3
  # Every frame is right, but for rounding in some.
  assert 140 < results['psnr'] < np.inf and 0 < results['psnr_left_out'] < 21
  assert results['copy_last_ssim'] < 1 and results['copy_last_psnr'] < 40
  assert results['films'].shape == (3, 7, 48, 16, 1) and results['films'].dtype == np.uint8
  target, predicted, error = np.split(results['films'], 3, axis=2)
  np.testing.assert_array_equal(target, predicted)
  assert (error == 127).all()
  # Traced once for every length: the first chunk, those after it and the last.
  assert [(num, total) for _, num, total in model.chunks] == [(4, 7), (3, 7)]
  assert model.chunks[0][0] == (4, 2, 16, 16, 1)  # nothing but the context is handed over


def test_examples_are_counted():
  assert len(evaluation(Counter(), videos([0, 10]), videos([20, 30]))['films']) == 3
  assert len(evaluation(Counter(), videos([0, 10]), num_examples=9)['films']) == 2


def test_a_frame_like_the_last_one_does_not_spoil_the_baseline():
  batch = videos([0, 10])
  still = batch['video'].at[1, 4].set(batch['video'][1, 1])  # the third predicted frame
  expected = evaluation(Counter(), batch)
  results = evaluation(Counter(), {**batch, 'video': still})
  assert expected['copy_last_psnr_left_out'] == 0 and results['copy_last_psnr_left_out'] == 1
  # All frames k after the context are 8 k brighter, in both videos.
  psnr = -20 * np.log10(8 * np.arange(1, 8) / 255)
  assert expected['copy_last_psnr'] == pytest.approx(psnr.mean(), abs=1e-4)
  assert results['copy_last_psnr'] == pytest.approx((2 * psnr.sum() - psnr[2]) / 13, abs=1e-4)
  assert np.isfinite(results['copy_last_ssim'])


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(chunk=3), r'open_loop.chunk=3 must be a multiple of 2, .*; try 2 or 4'),
    (dict(context=3), r'open_loop.context=3 must be a multiple of 2, .*; try 2 or 4'),
    (dict(context=1), r'open_loop.context=1 must be a multiple of 2, .*; try 2$'),
    (dict(context=10), 'open_loop.context=10 leaves nothing to predict of sequences of 9 frames'),
    (dict(seq_len=2), 'open_loop.context=2 leaves nothing to predict of sequences of 2 frames'),
    (dict(context=0), r'^config.evals.open_loop.context=0 must be at least 1$'),
    (dict(context=-2), r'open_loop.context=-2 must be at least 1'),
    (dict(num_examples=0), r'open_loop.num_examples=0 must be at least 1'),
    (dict(num_samples=-1), r'open_loop.num_samples=-1 must be at least 1'),
    (dict(chunk=-4), r'open_loop.chunk=-4 must not be negative'),
    (dict(seq_len=-1), r'open_loop.seq_len=-1 must not be negative'),
    (dict(batch_size=-8), r'open_loop.batch_size=-8 must not be negative'),
    (dict(ssim_data_range=0.0), r'open_loop.ssim_data_range=0.0 must be positive'),
    (dict(psnr_data_range=float('nan')), 'psnr_data_range=nan must be a number'),
  ],
  ids=str,
)
def test_refused_before_anything_is_predicted(options, message):
  model = Counter()
  with pytest.raises(UserError, match=message):
    read = lambda **_: iter_of(videos([0, 10]))
    config = ml_collections.ConfigDict(evals.defaults())
    evals.create('open_loop', config, model, read, 0, values=dict(context=2) | options)
  assert not model.chunks


def iter_of(*batches):
  """Returns batches in the form that evaluations read."""
  yield from batches


def test_pieces_of_other_lengths_are_refused_when_they_are_read():
  predict = open_loop.predictor(Counter(), open_loop.Options(context=10), 'config.open_loop')
  with pytest.raises(
    UserError, match=r'^config.open_loop.context=10 .* raise config.open_loop.seq_len'
  ):
    next(predict({}, {}, iter_of(videos([0])), RNG))


@pytest.mark.filterwarnings('error::RuntimeWarning')
def test_what_is_stored_of_frames_that_stand_still(tmp_path, capsys):
  batch = videos([0, 10])
  batch['video'] = batch['video'].at[:, 4].set(batch['video'][:, 1])
  options = mode.Options(context=2, num_examples=2, grids=False)
  predict = open_loop.predictor(Counter(), options)
  mode._store(tmp_path, predict({}, {}, iter_of(batch), RNG), {}, options)
  printed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
  assert printed['copy_last_psnr'].endswith('  (2 infinite ones left out)')
  assert 'left out' not in printed['copy_last_ssim']
  rows = list(csv.DictReader(open(tmp_path / 'per_frame.csv')))
  assert [row['copy_last_psnr_left_out'] for row in rows] == list('0020000')
  assert [row['copy_last_psnr_mean'] == 'nan' for row in rows] == [i == 2 for i in range(7)]
  results = _summary(tmp_path)['results']
  assert results['copy_last_psnr']['left_out'] == 2
  assert np.isfinite([*results['copy_last_psnr'].values()]).all()


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp('videos')
  moving_squares.write(folder)
  return folder


@pytest.mark.slow
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
  summary = _summary(folder)
  assert summary['num_examples'] == 2 and summary['num_frames'] == 12
  assert summary['origin']['step'] == 6 and summary['origin']['weights'] == 'ema'
  assert summary['view'] == 'test' and len(summary['examples']) == 2
  for name in ('psnr', 'copy_last_ssim'):
    mean = np.mean([float(row[f'{name}_mean']) for row in rows])
    assert summary['results'][name]['mean'] == pytest.approx(mean)
    examples = [example[name]['mean'] for example in summary['examples']]
    assert np.mean(examples) == pytest.approx(mean)
  assert 'in place of earlier results' not in capsys.readouterr().out

  # Other options: nothing of the folder is of the run before.
  config.open_loop.update(num_examples=1, num_samples=1, seq_len=12, seed=3)
  assert mode.run(config, tmp_path, 'latest') == 0
  assert f'stored in {folder}, in place of earlier results' in capsys.readouterr().out
  assert {path.name for path in folder.glob('sample*')} == {'sample0', 'sample0_gt'}
  assert {path.stem for path in (folder / 'sample0').iterdir()} == {'random_sample_1'}
  assert np.load(folder / 'sample0_gt' / 'gt_pred.npz')['arr_0'].shape[0] == 4
  summary = _summary(folder)
  chosen = dict(context=8, num_examples=1, num_samples=1, seq_len=12, seed=3, ssim_data_range=2.0)
  assert chosen.items() <= summary['options'].items() and summary['num_frames'] == 4
  assert [path.name for path in folder.parent.iterdir()] == ['test-6-ema']

  # The observed part of the context is chosen when a model is used.
  seen = np.load(folder / 'sample0' / 'random_sample_1.npz')['arr_0']
  config.model.use_obs = 'FFF'
  assert mode.run(config, tmp_path, 'latest') == 0
  said = "was trained differently: config.model.use_obs is '' there, 'FFF' here"
  assert said in capsys.readouterr().out
  assert (np.load(folder / 'sample0' / 'random_sample_1.npz')['arr_0'] != seen).any()

  # Limits and options of evaluations during training do not count.
  config.evals.names = ('elbo', 'open_loop', 'teacher_forced')
  config.evals.elbo.max_batches = 1
  config.evals.open_loop.num_examples = 2
  config.open_loop.num_examples, config.evals.teacher_forced.seq_len = 3, 20
  assert evaluate.run(config, tmp_path, 'latest') == 0
  out = capsys.readouterr().out
  assert 'elbo/neg_elbo_per_frame' in out and '12 examples' in out
  results = _strict_json(tmp_path / 'eval' / 'test-6-ema.json')['results']
  assert results['elbo/num_examples'] == 12 and results['open_loop/num_examples'] == 3
  assert results['open_loop/psnr'] > 0 and results['teacher_forced/prior_psnr'] > 0
  for name in ('open_loop', 'teacher_forced'):
    assert (tmp_path / 'eval' / f'test-6-ema-{name}-films.gif').exists()


def _summary(folder):
  return _strict_json(folder / 'summary.json')


def _strict_json(path):
  def refuse(constant):
    raise ValueError(constant)

  return json.loads(path.read_text(), parse_constant=refuse)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(batch_size=4), 'config.evals.open_loop.batch_size=4 .* multiple of the 8 devices'),
    (dict(seq_len=30), '30 frames .* longer than the 20 frames of the sequences'),
    (dict(context=7), 'config.evals.open_loop.context=7 must be a multiple of 4, .* try 4 or 8'),
    (dict(context=20), 'open_loop.context=20 leaves nothing to predict of sequences of 20 frames'),
    (dict(context=12, seq_len=12), 'context=12 leaves nothing to predict of sequences of 12'),
    (dict(num_samples=0), 'config.evals.open_loop.num_samples=0 must be at least 1'),
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


@pytest.mark.slow
def test_evaluations_name_the_options_that_they_take(root, tmp_path, monkeypatch):
  monkeypatch.setenv('HVAE_DATA', str(root))
  config = demo_moving_mnist.get_config('cwvae,debug')
  config.evals.names = ('open_loop',)
  trained_runs.save(tmp_path, config)
  for options, message in (
    (dict(batch_size=4), '^config.open_loop.batch_size=4 .* multiple of the 8 devices'),
    (dict(batch_size=0, context=7), '^config.open_loop.context=7 must be a multiple of 4'),
  ):
    config.open_loop.update(options)
    with pytest.raises(UserError, match=message):
      evaluate.run(config, tmp_path, 'latest')


def test_the_mode_names_its_own_options(tmp_path):
  config = demo_moving_mnist.get_config('cwvae,debug')
  config.open_loop.num_samples = 0
  with pytest.raises(UserError, match='^config.open_loop.num_samples=0 must be at least 1'):
    mode.run(config, tmp_path, 'latest')


def test_only_models_of_video_predict(root, tmp_path, monkeypatch):
  config = demo_moving_mnist.get_config('cwvae,debug')
  still = types.SimpleNamespace(model=object(), select=lambda weights: still)
  monkeypatch.setattr(restore, 'open_run', lambda *_: still)
  with pytest.raises(UserError, match=r'needs predict\(\), cycle, which object lacks'):
    mode.run(config, tmp_path, 'latest')
