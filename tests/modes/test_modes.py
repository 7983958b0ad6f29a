"""Modes on a trained run: reconstruct, div_stats, encode, decode, sample; refusals."""

import csv
import json
import os
import re
import signal
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image
import pytest

import hvae_tpu
from hvae_tpu import data
from hvae_tpu.errors import UserError
from hvae_tpu.modes import MODES, loaded_run
from hvae_tpu.runs import latents
from tests.support import trained_runs


class Used(NamedTuple):
  """A run on which every mode was run once.

  Attributes:
    config: config of the run.
    workdir: work directory of the run.
    out: printed lines of reconstruct.
  """

  config: Any
  workdir: Any
  out: str


def call(used_config, workdir, mode: str, checkpoint: str = 'latest', **options) -> int:
  """Runs a mode with options `config.<mode>.<key>`."""
  config = used_config.copy_and_resolve_references()
  config[mode].update(options)
  return MODES[mode].run(config, workdir, checkpoint)


SLOW = {'efficient_vdvae': pytest.mark.slow}  # the modes know systems by their protocol only


@pytest.fixture(
  scope='module',
  params=[pytest.param(name, marks=SLOW.get(name, ())) for name in trained_runs.FIELDS],
)
def used(request, data_root, tmp_path_factory) -> Used:
  workdir = tmp_path_factory.mktemp(request.param) / 'run'
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('HVAE_DATA', str(data_root))
    config = trained_runs.config_of(request.param)
    trained_runs.save(workdir, config)
    lines = []
    patch.setattr('builtins.print', lambda *parts, **_: lines.append(' '.join(map(str, parts))))
    assert call(config, workdir, 'div_stats', share=0.1) == 0
    quantiles = (1.0, 0.5, 0.1)
    assert call(config, workdir, 'reconstruct', quantiles=quantiles, save_targets=True) == 0
    assert call(config, workdir, 'encode', num=10) == 0
    assert call(config, workdir, 'encode', num=10, quantile=0.5, moments=False) == 0
  return Used(config, workdir, '\n'.join(lines))


@pytest.fixture(autouse=True)
def data_folder(data_root, monkeypatch):
  """Sets the data folder, in which only demo_mnist is built."""
  monkeypatch.setenv('HVAE_DATA', str(data_root))


@pytest.mark.slow
def test_div_stats(used):
  with np.load(used.workdir / 'div_stats' / '1-ema.npz') as arrays:
    kl, bits = arrays['kl'], arrays['bits']
  assert kl.shape == bits.shape == (3, 2) and (kl > 0).all()
  positions = np.array([[1.0], [1.0], [1024.0]])
  if used.config.model.name == 'efficient_vdvae':
    positions = np.array([[1.0], [1024.0], [1024.0]])
  np.testing.assert_allclose(bits, kl / positions / np.log(2), rtol=1e-5)
  about = json.loads((used.workdir / 'div_stats' / '1-ema.json').read_text())
  assert about['examples'] == 384 and about['origin']['step'] == 1  # three of 4500 / 10 / 128


def test_reconstruct(used):
  folder = used.workdir / 'reconstruct'
  with open(folder / 'test-1-ema.csv') as file:
    rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
  assert [row['quantile'] for row in rows] == [1, 0.5, 0.1]
  assert [row['examples'] for row in rows] == [250] * 3
  np.testing.assert_allclose([row['kept'] for row in rows], [1, 1 / 2, 1 / 6])
  assert rows[0]['kl'] > rows[1]['kl'] > rows[2]['kl'] > 0
  for row in rows:
    np.testing.assert_allclose(row['kl'] + row['nll'], row['neg_elbo'], rtol=1e-5)
  assert f'{rows[2]["kl"]:.5g}' in used.out and 'quantile' in used.out
  assert Image.open(folder / 'test-1-ema.png').size == (8 * 32, 4 * 32)  # originals on top
  assert Image.open(folder / 'test-1-ema-targets.png').size == (8 * 32, 32)
  assert Image.open(folder / 'test-1-ema-rate-distortion.png').size[0] > 100
  with np.load(folder / 'test-1-ema.npz') as arrays:
    grid = np.asarray(Image.open(folder / 'test-1-ema.png'))
    np.testing.assert_array_equal(grid[:32, :32], arrays['originals'][0, ..., 0])
    np.testing.assert_array_equal(grid[64:96, 32:64], arrays['q0.5'][1, ..., 0])


def test_the_elbo_equals_the_evaluation(used, tmp_path):
  """Compares draws from the same posterior: they differ little over 250 examples."""
  config = used.config.copy_and_resolve_references()
  config.evals.names = ('elbo',)
  assert MODES['eval'].run(config, used.workdir, 'latest') == 0
  expected = json.loads((used.workdir / 'eval' / f'test-1-{config.evals.weights}.json').read_text())
  with open(used.workdir / 'reconstruct' / 'test-1-ema.csv') as file:
    neg_elbo = float(next(csv.DictReader(file))['neg_elbo'])
  np.testing.assert_allclose(neg_elbo, expected['results']['elbo/neg_elbo'], rtol=0.02)


@pytest.mark.parametrize(('folder', 'row'), [('test-1-ema', 'q1'), ('test-1-ema-q0.5', 'q0.5')])
def test_decoded_latents_are_the_reconstructions_bit_for_bit(used, folder, row):
  path = used.workdir / 'encode' / folder
  assert call(used.config, used.workdir, 'decode', latents=str(path), num=9) == 0
  with np.load(used.workdir / 'decode' / f'{folder}-keep3.npz') as arrays:
    decoded, index = arrays['pictures'], arrays['index']
  with np.load(used.workdir / 'reconstruct' / 'test-1-ema.npz') as arrays:
    np.testing.assert_array_equal(decoded[:8], arrays[row])
  dataset = data.open_dataset('demo_mnist')
  np.testing.assert_array_equal(index, dataset.indices('test')[:9])
  assert Image.open(used.workdir / 'decode' / f'{folder}-keep3.png').size == (8 * 32, 2 * 32)


def test_stored_latents_equal_the_model(used):
  """Computes latents apart from the modes, with the key of the first batch."""
  stored = latents.open_latents(used.workdir / 'encode' / 'test-1-ema')
  assert len(stored) == 10 and stored[3].source == 'demo_mnist/all'
  model, params, state, config = hvae_tpu.load(used.workdir)
  dataset = data.open_dataset('demo_mnist')
  batch = next(data.eval_batches(dataset, 'test', batch_size=128, transforms=('binarize',)))
  rng = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))[0]
  groups = jax.jit(model.encode)(params, state, {'image': batch['image']}, rng)
  for group, expected_group in zip(stored.read(range(10)).latents, groups, strict=True):
    for part, expected in zip(group, expected_group, strict=True):
      np.testing.assert_allclose(part, expected[:10], rtol=1e-4, atol=1e-5)
  pruned = latents.open_latents(used.workdir / 'encode' / 'test-1-ema-q0.5')
  assert pruned.variates.sum() == 3 and pruned[0].latents[0].mean is None


def decoded(used, **options) -> np.ndarray:
  path = str(used.workdir / 'encode' / 'test-1-ema')
  assert call(used.config, used.workdir, 'decode', latents=path, num=3, **options) == 0
  keep = options.get('keep', 3)
  with np.load(used.workdir / 'decode' / f'test-1-ema-keep{keep}.npz') as arrays:
    return arrays['pictures']


def test_groups_that_are_not_kept_are_drawn_again(used):
  none = decoded(used, keep=0)
  with np.load(used.workdir / 'reconstruct' / 'test-1-ema.npz') as arrays:
    assert np.any(arrays['q1'][:3] != none)
  assert np.any(decoded(used, keep=0, seed=5) != none)
  cold = decoded(used, keep=0, temperature=(0.0,))
  np.testing.assert_array_equal(cold[0], cold[1])  # the mean of the prior, whatever the noise


def test_sample_takes_ramps_and_a_temperature_of_the_output(used):
  settings = dict(temperatures=(1.0, 'linear(0.7,0.9)', (1.0, 0.5, 0.1)), num=2, num_partial=1)
  path = used.workdir / 'sample' / 'samples-1-ema.png'
  assert call(used.config, used.workdir, 'sample', output_temperature=1e-4, **settings) == 0
  pictures = np.asarray(Image.open(path))
  assert pictures.shape == (3 * 32, 2 * 32)
  assert np.isin(pictures, (0, 255)).mean() > 0.95  # probabilities are all but 0 or 1


@pytest.mark.slow
def test_rows_need_not_divide_by_the_devices(used):
  """Draws three pictures and eight on eight devices: the three are the first of the eight."""
  rows = {}
  for num in (8, 3):
    assert call(used.config, used.workdir, 'sample', num=num, temperatures=(0.9,)) == 0
    grid = np.asarray(Image.open(used.workdir / 'sample' / 'partial-1-ema.png'))
    assert grid.shape == ((1 + 6 + 1) * 32, num * 32)
    rows[num] = grid
  np.testing.assert_array_equal(rows[3], rows[8][:, : 3 * 32])


ONE_SYSTEM = pytest.mark.parametrize('used', ['vdvae'], indirect=True)  # mistakes are the same
REFUSED = {
  (
    'reconstruct',
    'quantiles',
    (0.0,),
  ): 'config.reconstruct.quantiles=(0.0,) must be at most 1 and above 0',
  (
    'reconstruct',
    'quantiles',
    (1.5,),
  ): 'config.reconstruct.quantiles=(1.5,) must be at most 1 and above 0',
  (
    'reconstruct',
    'quantiles',
    ('a',),
  ): "config.reconstruct.quantiles=('a',) must be a tuple, each item a number",
  (
    'reconstruct',
    'quantiles',
    (True,),
  ): 'config.reconstruct.quantiles=(True,) must be a tuple, each item a number',
  ('reconstruct', 'quantiles', (1.0, 1.0)): 'config.reconstruct.quantiles has 1 more than once',
  ('reconstruct', 'quantiles', ()): 'config.reconstruct.quantiles=() must not be empty',
  ('reconstruct', 'columns', 0): 'config.reconstruct.columns=0 must be at least 1',
  ('reconstruct', 'num_pictures', -1): 'config.reconstruct.num_pictures=-1 must not be negative',
  ('encode', 'quantile', 1.5): 'config.encode.quantile=1.5 must be at most 1 and above 0',
  ('encode', 'num', -1): 'config.encode.num=-1 must not be negative',
  ('encode', 'split', 'odd'): "has no view 'odd'",
  ('decode', 'columns', 0): 'config.decode.columns=0 must be at least 1',
  ('decode', 'num', -1): 'config.decode.num=-1 must not be negative',
  ('decode', 'keep', 4): 'config.decode.keep=4 must be at most 3, the number of groups',
  ('decode', 'temperature', (1.0, 0.5)): 'config.decode.temperature has 2 numbers; the model has 3',
  ('decode', 'latents', 'nowhere'): 'nowhere/latents.json is missing',
  ('decode', 'temperature', ('linear(1)',)): "config.decode.temperature='linear(1)' is not a ramp",
  ('div_stats', 'share', 0.001): 'config.div_stats.share=0.001 must be at least one batch',
  ('sample', 'temperatures', ((1.0,),)): 'temperatures[0] has 1 numbers; the model has 3 levels',
  ('sample', 'output_temperature', -1.0): 'config.sample.output_temperature=-1.0 must be positive',
}


@ONE_SYSTEM
@pytest.mark.parametrize('case', REFUSED, ids=str)
def test_refused(used, case):
  mode, key, value = case
  with pytest.raises(UserError, match=re.escape(REFUSED[case])):
    call(used.config, used.workdir, mode, **{key: value})


@ONE_SYSTEM
def test_formats_are_checked_before_the_run_is_opened(used, tmp_path):
  with pytest.raises(UserError, match=r"encode.formats=\('csv',\) must be some of array_record"):
    call(used.config, tmp_path / 'nothing', 'encode', formats=('csv',))


@ONE_SYSTEM
def test_latents_that_do_not_divide_by_the_devices_are_refused(used):
  path = used.workdir / 'encode' / 'test-1-ema'
  card = path / 'latents.json'
  text = card.read_text()
  card.write_text(text.replace('"batch_size": 128', '"batch_size": 12'))
  try:
    text_of_error = 'test-1-ema were encoded in batches of 12, which must divide by the 8 devices'
    with pytest.raises(UserError, match=text_of_error):
      call(used.config, used.workdir, 'decode', latents=str(path))
  finally:
    card.write_text(text)


@ONE_SYSTEM
def test_a_signal_stops_sampling_between_rows(used, monkeypatch, capsys):
  rows_drawn = []
  with_progress = loaded_run.with_progress

  def signalled(rows, total, **options):
    for row in with_progress(rows, total, **options):
      rows_drawn.append(row)
      if len(rows_drawn) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
      yield row

  monkeypatch.setattr(loaded_run, 'with_progress', signalled)
  before = {path: path.stat().st_mtime_ns for path in (used.workdir / 'sample').glob('*')}
  assert call(used.config, used.workdir, 'sample', temperatures=(1.0, 0.9, 0.8)) == 0
  assert len(rows_drawn) == 2 and 'stopped; nothing was written' in capsys.readouterr().out
  after = {path: path.stat().st_mtime_ns for path in (used.workdir / 'sample').glob('*')}
  assert after == before


@pytest.mark.slow
@ONE_SYSTEM
def test_results_of_other_weights_are_refused(used):
  """Adds a checkpoint: its div_stats are missing, and the latents belong to the first one."""
  trained_runs.save(used.workdir, used.config, step=2, seed=1)
  text = r'needs div_stats of step 2, ema weights, .*there are those of 1-ema; run --mode=div_st'
  with pytest.raises(UserError, match=text):
    call(used.config, used.workdir, 'reconstruct', quantiles=(0.5,))
  with pytest.raises(UserError, match=r'belongs to .*step 1, ema, not to .*step 2, ema; give the'):
    call(used.config, used.workdir, 'decode')
  assert call(used.config, used.workdir, 'decode', '1', num=1) == 0
  for suffix in ('.npz', '.json'):  # as if the run had been trained anew
    source = used.workdir / 'div_stats' / f'1-ema{suffix}'
    source.with_name(f'2-ema{suffix}').write_bytes(source.read_bytes())
  with pytest.raises(UserError, match='2-ema.npz belongs to .*step 1, ema, not to'):
    call(used.config, used.workdir, 'encode', quantile=0.5)


@ONE_SYSTEM
def test_div_stats_of_other_data_are_refused(used):
  path = used.workdir / 'div_stats' / '1-ema.json'
  about = path.read_text()
  path.write_text(about.replace('"data": "demo_mnist"', '"data": "other"'))
  try:
    with pytest.raises(UserError, match='was made on data set other, but config.data.name=demo_mn'):
      call(used.config, used.workdir, 'encode', '1', quantile=0.5)
  finally:
    path.write_text(about)


@ONE_SYSTEM
def test_another_config_is_refused(used):
  config = used.config.copy_and_resolve_references()
  config.model.zdim = 3
  for mode in ('reconstruct', 'div_stats', 'encode', 'decode'):
    with pytest.raises(UserError, match='holds another model: config.model.zdim is 2 there, 3 her'):
      MODES[mode].run(config, used.workdir, 'latest')


def test_a_signal_stops_between_batches(capsys):
  @loaded_run.interruptible
  def run(config, workdir, checkpoint, raise_if_interrupted) -> None:
    raise_if_interrupted()
    os.kill(os.getpid(), signal.SIGTERM)
    raise_if_interrupted()
    raise AssertionError('went on')

  assert run(None, None, 'latest') == 0
  assert 'stopped; nothing was written' in capsys.readouterr().out


def test_a_signal_stops_an_evaluation(used, monkeypatch, capsys):
  def signalled(batches, total):
    assert total == 2
    os.kill(os.getpid(), signal.SIGTERM)
    yield from batches

  monkeypatch.setattr(loaded_run, 'with_progress', signalled)
  config = used.config.copy_and_resolve_references()
  config.evals.names, config.evals.weights = ('iwae',), 'raw'
  assert MODES['eval'].run(config, used.workdir, 'latest') == 0
  assert 'stopped; nothing was written' in capsys.readouterr().out
  assert not (used.workdir / 'eval' / 'test-1-raw.json').exists()
