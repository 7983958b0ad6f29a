"""Refused imports: one sentence each, with the remedy."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors
from safetensors import safe_open

from hvae_tpu.errors import UserError
from hvae_tpu.importers import conversion
from hvae_tpu.runs import restore
from tests.support import foreign


@pytest.fixture(scope='module')
def weights() -> dict[str, np.ndarray]:
  return foreign.random_tensors(foreign.released())


@pytest.fixture(scope='module', autouse=True)
def data_folder(data_root):
  """Only demo_mnist is built, wherever the tests run."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('HVAE_DATA', str(data_root))
    yield


@pytest.fixture(scope='module')
def exported(tmp_path_factory) -> Path:
  return foreign.export_demo(tmp_path_factory.mktemp('exported') / 'demo.safetensors')


@dataclasses.dataclass
class Case:
  """One malformed import, and its message."""

  expected: str
  tensors: Any = None  # weights -> the arrays that are written
  name: str = 'openai_vdvae'
  settings: dict = dataclasses.field(default_factory=dict)
  options: dict = dataclasses.field(default_factory=dict)


GAIN, KERNEL = 'decoder.gain', 'encoder.in_conv.weight'
NAN = np.full((1, 8, 1, 1), np.nan, np.float32)
MALFORMED = {
  'missing': Case(
    r'1 missing: decoder.gain \(1, 8, 1, 1\)', lambda w: {k: w[k] for k in w if k != GAIN}
  ),
  'extra': Case(r'1 not expected: surplus \(2,\)', lambda w: w | {'surplus': np.zeros(2, 'f4')}),
  'shape': Case(
    r'encoder.in_conv.weight is float32 \(3, 3, 3, 8\), expected float32 \(8, 3, 3, 3\)',
    lambda w: w | {KERNEL: w[KERNEL].transpose(2, 3, 1, 0)},
  ),
  'dtype': Case(
    r'decoder.gain is float64 \(1, 8, 1, 1\), expected float32',
    lambda w: w | {GAIN: w[GAIN].astype('f8')},
  ),
  'not finite': Case('w.th: params/gain holds NaN or infinite numbers', lambda w: w | {GAIN: NAN}),
  'both prefixes': Case(
    "with and without the prefix 'module.'", lambda w: w | {f'module.{GAIN}': NAN}
  ),
  'nothing': Case(r'\d+ missing: encoder.in_conv.weight .*, \.\.\.;', lambda w: {}),
  'other names': Case(
    r'179 missing: .* 179 not expected: ', lambda w: {f'x.{k}': v for k, v in w.items()}
  ),
  'other width': Case(
    'of another kind: .*; use the config.model that the weights were trained with',
    settings={'width': 16},
  ),
  'other depth': Case('missing: decoder.dec_blocks.', settings={'dec_blocks': '1x3,8m1,8,32m8,32'}),
  'activation': Case(
    r'brings models with config.model.gelu_approximate=False \(not True\); set them',
    settings={'gelu_approximate': True},
  ),
  'likelihood': Case("likelihood='dmol_torch'", settings={'likelihood': 'dmol_exact'}),
  'other format': Case('missing: encoder/Conv_0/kernel', name='vdvae_jax', settings=foreign.PORT),
  'unknown format': Case(
    '--from=pytorch must be one of openai_vdvae, vdvae_jax, efficient_vdvae_jax', name='pytorch'
  ),
  'not exported by us': Case(
    "has format None, version None in its metadata, expected 'hvae_tpu'", name='hvae_tpu'
  ),
  'no data set': Case("data set 'cifar10' is not in", options={'verify_examples': 8}),
}


@pytest.mark.parametrize('case', MALFORMED)
def test_malformed_imports_are_refused(case, weights, tmp_path):
  """Checks for one sentence, and no trace in the work directory."""
  case = MALFORMED[case]
  source = foreign.write(
    tmp_path / 'w.th', case.tensors(dict(weights)) if case.tensors else weights
  )
  config = foreign.released()
  config.model.update(case.settings)
  with pytest.raises(UserError, match=case.expected) as caught:
    conversion.import_run(case.name, str(source), tmp_path / 'run', config, **case.options)
  assert '\n' not in str(caught.value)
  assert not (tmp_path / 'run').exists()


EXCHANGE = {
  'version': (lambda m: m | {'version': '9'}, "version '9' in its metadata"),
  'no step': (lambda m: {k: v for k, v in m.items() if k != 'step'}, 'metadata of the file are'),
  'negative step': (lambda m: m | {'step': '-1'}, 'lack config, card or step'),
  'no JSON': (lambda m: m | {'config': '{'}, 'metadata of the file are damaged'),
  'deep JSON': (lambda m: m | {'config': '[' * 100_000}, 'metadata of the file are damaged'),
  'no card': (lambda m: m | {'card': '{}'}, 'metadata of the file are damaged'),
  'card of nonsense': (
    lambda m: m | {'card': '{"fields": {"image": {"shape": "x", "dtype": "y"}}}'},
    'data card in the file is damaged',
  ),
  'no sections': (lambda m: m | {'config': '{"seed": 0}'}, 'the config in it lacks data, mesh'),
}


@pytest.mark.parametrize('case', EXCHANGE)
def test_damaged_metadata_are_refused(case, exported, tmp_path):
  change, expected = EXCHANGE[case]
  with safe_open(exported, framework='np') as file:
    metadata = file.metadata()
  path = tmp_path / 'changed.safetensors'
  safetensors.save_file(safetensors.load_file(exported), path, change(metadata))
  with pytest.raises(UserError, match=expected):
    conversion.import_run('hvae_tpu', str(path), tmp_path / 'run', None)


def test_arguments_that_contradict_each_other(exported, weights, tmp_path, debug_config):
  other = tmp_path / 'other.safetensors'
  safetensors.save_file({'params/x': np.zeros(1), 'moments/x': np.zeros(1)}, other)
  source = foreign.write(tmp_path / 'w.th', weights)
  run = tmp_path / 'run'

  def refused(expected, *args, **options):
    with pytest.raises(UserError, match=expected):
      conversion.import_run(*args, **options)

  debug_config.model.zdim = 3
  refused(
    'holds another model: config.model.zdim is 2 there, 3 here',
    'hvae_tpu',
    str(exported),
    run,
    debug_config,
  )
  refused(
    'has a moving average of its own', 'hvae_tpu', str(exported), run, None, ema=str(exported)
  )
  refused('needs --config=', 'openai_vdvae', str(source), run, None)
  config = foreign.released()
  config.train.ema_decay = None
  refused(
    'config.train.ema_decay is None; set it',
    'openai_vdvae',
    str(source),
    run,
    config,
    ema=str(source),
  )
  config = foreign.released()
  config.data.name = 'demo_mnist'
  refused(
    r'demo_mnist has image uint8 \[32, 32, 1\], the weights take uint8 \[32, 32, 3\]',
    'openai_vdvae',
    str(source),
    run,
    config,
  )
  refused('format None', 'hvae_tpu', str(other), run, None)
  assert not run.exists()


def test_a_run_is_never_overwritten(exported, tmp_path):
  run = tmp_path / 'run'
  run.mkdir()
  (run / 'config.json').write_text('{}')
  with pytest.raises(
    UserError, match=r'holds a run already \(config.json\), which an import never'
  ):
    conversion.import_run('hvae_tpu', str(exported), run, None)
  assert (run / 'config.json').read_text() == '{}'
  with pytest.raises(UserError, match='holds a run already'):
    conversion.import_run('hvae_tpu', str(exported), exported, None)


def test_a_run_that_cannot_be_read_back_is_removed(exported, tmp_path, monkeypatch):
  """So that it is not in the way of the next import."""

  def damaged(*args, **options):
    assert (tmp_path / 'run' / 'config.json').exists()
    raise UserError('damaged')

  monkeypatch.setattr(restore, 'open_run', damaged)
  with pytest.raises(UserError, match='damaged'):
    conversion.import_run('hvae_tpu', str(exported), tmp_path / 'run', None)
  assert not list((tmp_path / 'run').iterdir())


def test_a_work_directory_that_cannot_be_made(exported, tmp_path):
  (tmp_path / 'file').write_text('text')
  with pytest.raises(UserError, match='file/run cannot be written .* give another'):
    conversion.import_run('hvae_tpu', str(exported), tmp_path / 'file' / 'run', None)
  assert (tmp_path / 'file').read_text() == 'text'
