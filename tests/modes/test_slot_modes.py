"""Modes for slots: segment, disentangle, traverse, eval, geco_target; refusals."""

import csv
import json
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
import pytest

from configs import demo_mnist, demo_tetrominoes
from data_prep import build
from hvae_tpu.errors import UserError
from hvae_tpu.modes import MODES
from tests.support import trained_runs


class Used(NamedTuple):
  """A run on eight scenes on which the modes were run once; `out`: their printed lines."""

  config: Any
  workdir: Any
  out: str


def call(config, workdir, mode: str, **options) -> int:
  """Runs a mode with options `config.<mode>.<key>`."""
  config = config.copy_and_resolve_references()
  config[mode].update(options)
  return MODES[mode].run(config, workdir, 'latest')


@pytest.fixture(scope='module')
def scenes_root(tmp_path_factory):
  root = tmp_path_factory.mktemp('scenes')
  build.build('demo_tetrominoes', root, limit=340)
  return root


@pytest.fixture(autouse=True)
def data_folder(scenes_root, monkeypatch):
  """Sets the data folder of this module's tests."""
  monkeypatch.setenv('HVAE_DATA', str(scenes_root))


@pytest.fixture(scope='module')
def used(scenes_root, tmp_path_factory) -> Used:
  workdir, lines = tmp_path_factory.mktemp('slots') / 'run', []
  config = demo_tetrominoes.get_config('efficient_morl,debug')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('HVAE_DATA', str(scenes_root))
    trained_runs.save(workdir, config)
    patch.setattr('builtins.print', lambda *parts, **_: lines.append(' '.join(map(str, parts))))
    assert call(config, workdir, 'segment', num_examples=8, num_records=2) == 0
    assert call(config, workdir, 'segment', num_examples=3, num_records=1, show_attention=True) == 0
    options = dict(num_examples=8, num_range=8, num_active=2, factors=('x', 'shape'))
    assert call(config, workdir, 'disentangle', **options) == 0
    assert call(config, workdir, 'traverse', num_dims=2) == 0
  return Used(config, workdir, '\n'.join(lines))


@pytest.mark.slow
def test_segment_writes_scores_records_and_figures(used):
  folder = used.workdir / 'segment'
  names = {path.name for path in folder.iterdir()}
  assert names == {
    f'test-1-ema{end}' for end in ('.csv', '-0000.npz', '-0000.png', '-0001.npz', '-0001.png')
  }
  with open(folder / 'test-1-ema.csv') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 3 * 2  # the second call: three scenes, none and one refinement
  assert {row['refinements'] for row in rows} == {'0', '1'}
  assert all(np.isfinite(float(row[name])) for row in rows for name in row)
  with np.load(folder / 'test-1-ema-0000.npz', allow_pickle=False) as record:
    assert record['outputs/recons'].shape == (1, 4, 35, 35, 3)
    assert record['data/true_mask'].sum() == 255 * 35 * 35
  # Columns: picture, reconstruction, masks, attention, four slots; rows: stages.
  width, height = Image.open(folder / 'test-1-ema-0000.png').size
  assert width / height == pytest.approx(8 / 4, rel=0.02)
  assert 'means over 8 scenes' in used.out and 'means over 3 scenes' in used.out


@pytest.mark.slow
def test_disentangle_writes_ranges_and_activeness(used):
  path = used.workdir / 'disentangle' / '1-ema.npz'
  with np.load(path) as arrays:
    assert arrays['range'].shape == (4, 2) and (arrays['range'][:, 0] < arrays['range'][:, 1]).all()
    assert arrays['activeness'].shape == (2, 4) and (arrays['activeness'] >= 0).all()
  about = json.loads(path.with_suffix('.json').read_text())
  assert about['factors'] == ['x', 'shape'] and about['scenes'] == 8
  with open(path.with_suffix('.csv')) as file:
    assert [row['dimension'] for row in csv.DictReader(file)] == ['0', '1', '2', '3']


@pytest.mark.slow
def test_traverse_writes_animations(used):
  names = sorted(path.name for path in (used.workdir / 'traverse').glob('*.gif'))
  assert len(names) == 4 * 2 and names[0].startswith('test-1-ema-0000-slot0-rank0-dim')
  image = Image.open(used.workdir / 'traverse' / names[0])
  assert image.size == (37, 39) and image.n_frames > 1
  rows = Image.open(used.workdir / 'traverse' / 'test-1-ema-0000-slot3.png')
  assert rows.size == (8 * 37 + 2, 2 * 39)


@pytest.mark.slow
def test_traversals_need_ranges_of_these_weights(used, tmp_path):
  trained_runs.save(tmp_path, used.config, seed=1)
  with pytest.raises(UserError, match='1-ema.npz is missing; run --mode=disentangle'):
    call(used.config, tmp_path, 'traverse')
  for name in ('1-ema.npz', '1-ema.json'):
    (tmp_path / 'disentangle').mkdir(exist_ok=True)
    (tmp_path / 'disentangle' / name).write_bytes(
      (used.workdir / 'disentangle' / name).read_bytes()
    )
  with pytest.raises(UserError, match='belongs to .*; run --mode=disentangle'):
    call(used.config, tmp_path, 'traverse')


@pytest.mark.slow
def test_eval_compares_with_colours(used, capsys):
  config = used.config.copy_and_resolve_references()
  config.evals.names = ('segmentation', 'textures', 'colour_kmeans_baseline')
  config.evals.batch_size = 80
  config.evals.max_batches = 1
  assert MODES['eval'].run(config, used.workdir, 'latest') == 0
  record = json.loads((used.workdir / 'eval' / 'test-1-ema.json').read_text())
  results = record['results']
  assert results['textures/num_examples'] == results['colour_kmeans_baseline/num_examples'] == 320
  assert results['segmentation/num_examples'] == 80
  assert results['colour_kmeans_baseline/ari'] > 0.3 > abs(results['segmentation/ari'])
  assert (used.workdir / 'eval' / 'test-1-ema-segmentation-scenes.png').exists()
  assert 'colour_kmeans_baseline/ari' in capsys.readouterr().out


@pytest.mark.slow
def test_a_target_is_proposed(used, tmp_path, capsys):
  config = used.config.copy_and_resolve_references()
  config.train.num_steps, config.geco_target.share = 40, 0.1
  config.model.geco_target = -9.0
  assert MODES['geco_target'].run(config, tmp_path, 'latest') == 0
  proposal = json.loads((tmp_path / 'geco_target' / 'proposal.json').read_text())
  assert proposal['steps'] == 4 and proposal['guess'] == -9
  assert proposal['geco_target'] > proposal['lowest'] == config.model.log_scale
  out = capsys.readouterr().out
  assert 'warning: config.model.geco_target=-9.0 cannot be reached' in out
  assert f'--config.model.geco_target={proposal["geco_target"]:g}' in out
  assert 'objects are not found yet' in out


@pytest.mark.slow
def test_what_targets_are_not_for(used, tmp_path):
  config = used.config.copy_and_resolve_references()
  config.geco_target.share = 0.0
  with pytest.raises(UserError, match='config.geco_target.share=0.0 .* between one step and all'):
    MODES['geco_target'].run(config, tmp_path, 'latest')
  config.model.use_geco = False
  with pytest.raises(UserError, match='needs a model with config.model.use_geco=True'):
    MODES['geco_target'].run(config, tmp_path, 'latest')


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['segment', 'disentangle', 'traverse'])
def test_models_without_slots_are_refused(mode, data_root, tmp_path, monkeypatch):
  monkeypatch.setenv('HVAE_DATA', str(data_root))
  config = demo_mnist.get_config('vdvae,debug')
  trained_runs.save(tmp_path, config)
  with pytest.raises(
    UserError, match=f'--mode={mode} needs segment\\(\\), paint\\(\\), num_slots, which VDVAE lacks'
  ):
    call(config, tmp_path, mode)


@pytest.mark.slow
def test_wrong_options_are_told(used):
  with pytest.raises(UserError, match=r"factors=\('weight',\) must be among those of demo_tetro"):
    call(used.config, used.workdir, 'disentangle', factors=('weight',))
  with pytest.raises(UserError, match='config.disentangle.num_range=0 must be at least 1'):
    call(used.config, used.workdir, 'disentangle', num_range=0)
  with pytest.raises(
    UserError, match="config.traverse.limits='all' must be one of 'range', 'reference'"
  ):
    call(used.config, used.workdir, 'traverse', limits='all')
  with pytest.raises(UserError, match='config.traverse.frames=0 must be at least 1'):
    call(used.config, used.workdir, 'traverse', frames=0)
