"""Modes explore, interpolate and pick: fixed groups stay, varied groups change; refusals."""

import json
import os
import re
import signal
import sys

import jax
import numpy as np
from PIL import Image
import pytest

from hvae_tpu import generation
from hvae_tpu.errors import UserError
from hvae_tpu.figures import sheets
from hvae_tpu.generation import paths, picture_files, programs, variation
from hvae_tpu.generation.candidates import read_choice
from hvae_tpu.modes import MODES
from hvae_tpu.runs import latents
from tests.support import tiny, trained_runs

OF_IMAGES = [
  pytest.param(name, marks=() if name == 'vdvae' else pytest.mark.slow)
  for name, system in tiny.SYSTEMS.items()
  if system.decoded
]


@pytest.fixture(scope='module', params=OF_IMAGES)
def trained(request):
  """Model, params and state of a system that encodes and decodes; every group matters."""
  model = tiny.SYSTEMS[request.param].model
  params, state = jax.jit(model.init)(jax.random.key(0), {'image': tiny.images(model)})
  rng = np.random.default_rng(0)
  return model, jax.tree.map(lambda p: p + 0.2 * rng.standard_normal(p.shape, 'f'), params), state


@pytest.mark.slow
def test_samples_are_decoded_draws_from_the_prior(trained):
  model, params, state = trained
  key, num = jax.random.key(3), 4
  latents = jax.jit(model.draw_prior, static_argnums=3)(params, state, key, num, 0.7)
  sampled = jax.jit(model.sample, static_argnums=3)(params, state, key, num, 0.7)
  np.testing.assert_array_equal(jax.jit(model.decode)(params, state, latents, key), sampled)


@pytest.mark.slow
def test_groups_are_drawn_with_the_given_noise(trained):
  """Changes one group: earlier groups stay, distributions of later groups move."""
  model, params, state = trained
  shapes = programs.shapes(model, params, state)
  noise = programs.stacked([programs.draw(shapes, 0, row) for row in range(4)])
  changed = (*noise[:1], noise[1] + 1, *noise[2:])
  before, after = (programs.generate(model, params, state, n)[0] for n in (noise, changed))
  np.testing.assert_array_equal(before[0].z, after[0].z)
  assert np.abs(before[1].z - after[1].z).min() > 0
  assert np.abs(before[2].mean - after[2].mean).max() > 0
  for groups, expected in ((before, noise), (after, changed)):
    for group, n in zip(groups, expected, strict=True):
      np.testing.assert_allclose((group.z - group.mean) / group.scale, n, atol=1e-3)


def test_vary(trained):
  model, params, state = trained
  pictures = generation.vary(model, params, state, 1, rows=2, num=3, noise_std=2.0)
  side = model.image_size
  assert pictures.shape == (2, 4, side, side, 3) and pictures.dtype == np.uint8
  still = generation.vary(model, params, state, 2, rows=2, num=3, noise_std=2.0)
  # The samples do not depend on the group.
  np.testing.assert_array_equal(pictures[:, 0], still[:, 0])
  assert (pictures[0, 1] != pictures[0, 0]).any() and (pictures[0, 1] != pictures[0, 2]).any()


def test_positions_change_their_place_only():
  noise = (np.zeros((1, 1, 2)), np.zeros((4, 4, 2)))
  changed = variation._changed(noise, 1, (2, 3), np.ones((4, 4, 2)))
  assert changed[0] is noise[0] and changed[1].sum() == 2 and (changed[1][2, 3] == 1).all()
  assert not noise[1].any()


def test_differences_are_signed():
  pictures = np.array([100, 90, 255, 0], np.uint8).reshape(1, 4, 1, 1, 1)
  assert variation.differences(pictures).ravel().tolist() == [100, 118, 255, 28]


@pytest.mark.slow
def test_interpolation_ends_at_the_reconstructions(trained):
  model, params, state = trained
  images = tiny.images(model, 2)
  groups = programs.encode(model, params, state, images)
  ends = programs.decode(model, params, state, groups)
  mixed = generation.combine(model, params, state, images)
  levels = len(model.level_names)
  assert mixed.shape[:2] == (2, levels + 1)
  for path in paths.PATHS:
    strip = generation.interpolate(model, params, state, images, num=3, path=path)
    assert len(strip) == 5
    # Other batches draw other pixels from the same groups.
    assert strip.shape[1:] == ends.shape[1:]
  with pytest.raises(UserError, match="path 'straight' must be one of linear, spherical"):
    generation.interpolate(model, params, state, images, path='straight')


def test_spherical_paths_keep_the_length():
  rng = np.random.default_rng(0)
  a, b = rng.standard_normal((2, 4, 4, 3))
  b *= np.linalg.norm(a) / np.linalg.norm(b)
  middle = paths.PATHS['spherical'](a, b, 0.5)
  np.testing.assert_allclose(np.linalg.norm(middle), np.linalg.norm(a))
  np.testing.assert_allclose((middle * a).sum(), (middle * b).sum())
  np.testing.assert_allclose(paths.PATHS['spherical'](a, a, 0.3), a)
  np.testing.assert_allclose(paths.PATHS['linear'](a, b, 0.25), 0.75 * a + 0.25 * b)


def test_cuts_take_groups_of_both(monkeypatch):
  """Combines groups of zeros and ones, which decode to themselves."""
  z = lambda: np.stack([np.zeros((1, 1, 1)), np.ones((1, 1, 1))])
  groups = tuple(paths.Group(None, None, z()) for _ in range(3))
  monkeypatch.setattr(programs, 'encode', lambda *args: groups)
  decode = lambda m, p, s, latents, seed: np.stack([g.z[:, 0, 0, 0] for g in latents], -1)
  monkeypatch.setattr(programs, 'decode', decode)
  combined = paths.combine(None, None, None, None)
  assert combined[0].tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]]
  assert combined[1].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_candidates_do_not_depend_on_each_other(trained):
  model, params, state = trained
  many, _ = generation.candidates(model, params, state, range(1, 6), temperature=0.8)
  few, _ = generation.candidates(model, params, state, (4, 2), temperature=0.8)
  for one, other in zip(many, few, strict=True):
    np.testing.assert_allclose(one.z[[3, 1]], other.z, atol=1e-5)


def test_choices_are_read():
  assert read_choice('3, 7 1', 9) == (3, 7, 1) and read_choice('', 9) == ()
  for text, message in (('10', 'has 10; the candidates have the numbers 1 to 9'), ('a', "has 'a'")):
    with pytest.raises(UserError, match=message):
      read_choice(text, 9)
  with pytest.raises(UserError, match='has 3 twice'):
    read_choice('3 3', 9)


def test_files_become_pictures(tmp_path):
  Image.new('RGB', (20, 10), (255, 0, 0)).save(tmp_path / 'wide.png')
  (tmp_path / 'torn.png').write_bytes((tmp_path / 'wide.png').read_bytes()[:40])
  picture = picture_files.read(tmp_path / 'wide.png', 8, 3, resize=True)
  assert picture.shape == (8, 8, 3) and (picture == (255, 0, 0)).all()
  assert picture_files.read(tmp_path / 'wide.png', 8, 1, resize=True).shape == (8, 8, 1)
  with pytest.raises(UserError, match=r'wide.png is 10 x 20, .* of 8 x 8; .*resize=true'):
    picture_files.read(tmp_path / 'wide.png', 8, 3)
  for name in ('torn.png', 'none.png'):
    with pytest.raises(UserError, match=f'{name} cannot be read as a picture .*give a PNG'):
      picture_files.read(tmp_path / name, 8, 3)


def test_sheets_have_room_for_words():
  pictures = np.full((2, 48, 48, 1), 7, np.uint8)
  plain = sheets.sheet([pictures])
  labelled = sheets.sheet([pictures], ['row'], [['1', '2']], ['a', 'b'])
  assert plain.shape == (104, 204, 3)  # each enlarged to 96 px, with gaps of 4
  assert labelled.shape[0] > 104 and labelled.shape[1] > 204
  assert (labelled == 7).all(-1).sum() == 2 * 96**2
  assert sheets.there_and_back(np.arange(4)).tolist() == [0, 1, 2, 3, 2, 1]


# Tests of the modes.


@pytest.fixture(scope='module')
def run(data_root, tmp_path_factory):
  config = trained_runs.config_of('vdvae')
  workdir = tmp_path_factory.mktemp('explore') / 'run'
  trained_runs.save(workdir, config)
  return config, workdir


@pytest.fixture
def call(run):
  config, workdir = run

  def called(mode, **options):
    changed = config.copy_and_resolve_references()
    changed[mode].update(options)
    return MODES[mode].run(changed, workdir, 'latest')

  return called


@pytest.mark.slow
def test_modes_write(run, call):
  folder = run[1] / 'explore' / '1-ema'
  assert call('explore', rows=2, num=3) == 0
  names = {path.name for path in folder.iterdir()}
  assert names == {f'group-{i:02d}.{kind}' for i in range(3) for kind in ('png', 'gif')} | {
    'contact.png'
  }
  assert Image.open(folder / 'contact.png').size[0] > 4 * 96
  assert call('explore', groups=(1,), position='each') == 0
  assert (folder / 'sweep-01.png').exists()

  assert call('pick', choose=(7, 2)) == 0
  folder = run[1] / 'pick' / '1-ema-seed0'
  assert json.loads((folder / 'chosen.json').read_text())['numbers'] == [7, 2]
  assert Image.open(folder / 'chosen.png').size == (64, 32)
  assert len(latents.open_latents(folder / 'latents')) == 2
  assert call('decode', latents=str(folder / 'latents')) == 0
  decoded = np.asarray(Image.open(run[1] / 'decode' / 'latents-keep3.png'))
  np.testing.assert_array_equal(decoded, np.asarray(Image.open(folder / 'chosen.png')))

  images = f'({folder / "chosen-007.png"},{folder / "chosen-002.png"})'
  assert call('interpolate', images=images, num=2) == 0
  names = {path.name for path in (run[1] / 'interpolate').glob('*/*')}
  assert names == {'strip.png', 'combine.png', 'linear.gif', 'spherical.gif'}


def test_a_person_picks(run, call, monkeypatch, capsys):
  answers = iter(['99', '2 5', '', '17 q'])
  monkeypatch.setattr('builtins.input', lambda prompt: next(answers))
  monkeypatch.setattr(sys.stdin, 'isatty', lambda: True, raising=False)
  assert call('pick', sheets=3, seed=5) == 0
  folder = run[1] / 'pick' / '1-ema-seed5'
  assert 'the choice has 99; the candidates have the numbers 1 to 9' in capsys.readouterr().out
  assert json.loads((folder / 'chosen.json').read_text())['numbers'] == [2, 5, 17]


REFUSED = {
  ('explore', 'groups', (3,)): 'config.explore.groups has 3; the model has 3 groups, 0 (the coars',
  ('explore', 'groups', (-1,)): 'config.explore.groups has -1; the model has 3 groups',
  ('explore', 'position', '0,1'): 'position (0, 1) lies outside of group 0, which is 1 x 1',
  ('explore', 'position', 'here'): "config.explore.position='here' must be 'all', 'each', or one",
  ('explore', 'num', 0): 'config.explore.num=0 must be at least 1',
  (
    'explore',
    'statistic',
    'mode',
  ): "config.explore.statistic='mode' must be one of 'sample', 'mean'",
  ('explore', 'refresh_iterations', 2): 'needs refresh(), which VDVAE lacks; give the model',
  ('interpolate', 'images', 'one.png'): "config.interpolate.images='one.png' must name two picture",
  ('interpolate', 'images', 'a.png,b.png'): 'a.png cannot be read as a picture',
  ('pick', 'choose', (37,)): 'config.pick.choose has 37; the candidates have the numbers 1 to 36',
  ('pick', 'choose', (0,)): 'config.pick.choose has 0; the candidates have the numbers 1 to 36',
  ('pick', 'sheets', 0): 'config.pick.sheets=0 must be at least 1',
}


@pytest.mark.parametrize('case', REFUSED, ids=str)
def test_refused(call, case):
  mode, key, value = case
  with pytest.raises(UserError, match=re.escape(REFUSED[case])):
    call(mode, **{key: value})


def test_a_signal_stops_between_groups(run, call, monkeypatch, capsys):
  groups = []

  def signalled(*args, **kwargs):
    groups.append(args[3])
    os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(generation, 'vary', signalled)
  before = sorted((run[1] / 'explore').rglob('*'))
  assert call('explore') == 0
  assert groups == [0] and 'stopped; nothing was written' in capsys.readouterr().out
  assert sorted((run[1] / 'explore').rglob('*')) == before
