"""Settings of Efficient-VDVAE's releases: read without running anything, and converted to ours."""

import copy
import importlib.util
import json
import re

from absl.testing import flagsaver
import jax
import numpy as np
import pytest

from configs import celebahq256, mnist
from hvae_tpu import convert, models
from hvae_tpu.errors import UserError
from hvae_tpu.importers import cfg_files, efficient_vdvae_cfg
from tests.golden_checks.efficient_vdvae import networks
from tests.support import golden_files


def text_of(values: dict) -> str:
  """Writes a cfg of values by section, in the form of the reference."""
  parts = []
  for section, entries in values.items():
    parts += [f'[{section}]', '# A remark.', *(f'{k} = {v!r}' for k, v in entries.items()), '']
  return '\n'.join(parts)


def golden_values() -> dict:
  path = golden_files.COMMITTED / 'efficient_vdvae' / 'forward_rgb8_std.npz'
  return copy.deepcopy(golden_files.read(path).config)


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('[1] * 2 + [2, -1]', [1, 1, 2, -1]),
    ('32 * 4', 128),
    ('2. ** -1 + 3 / 4 - 1', 0.25),
    ("('linear', 0.7, .9)", ('linear', 0.7, 0.9)),
    ('max(1, min(2, 3))  # a remark', 2),
    ('[[1] * 2,\n  None, True]', [[1, 1], None, True]),
  ],
)
def test_expressions(tmp_path, text, value):
  path = tmp_path / 'a.cfg'
  path.write_text(f'[s]\nKey = {text}\n')
  assert cfg_files.read(path) == {'s': {'Key': value}}


@pytest.mark.parametrize(
  'text',
  [
    "__import__('pathlib').Path('{mark}').touch()",
    "open('{mark}', 'w')",
    '[c for c in ().__class__.__base__.__subclasses__()]',
    "(lambda: open('{mark}', 'w'))()",
    "max(1, open('{mark}', 'w'))",
    "f'{{open(1)}}'",
    'max([1, 2], key=len)',
    'name',
    '1 if True else 2',
    '[*range(3)]',
    '[0] * 10**9',
    '9 ** 9 ** 9',
    "'a' * 10**9",
    '1 / 0',
    '1 +',
    '-' * 50_000 + '1',
    b'b"x"'.decode(),
    '...',
  ],
  ids=lambda text: text[:20],
)
def test_code_is_refused_and_not_run(tmp_path, text):
  mark, path = tmp_path / 'it_ran', tmp_path / 'a.cfg'
  path.write_text(f'[s]\nkey = {text.format(mark=mark)}\n')
  with pytest.raises(UserError, match=r'a.cfg: s.key is not a value made of numbers.*nothing in'):
    cfg_files.read(path)
  assert [p.name for p in tmp_path.iterdir()] == ['a.cfg']


@pytest.mark.parametrize('text', ['no section', '[a]\nx = 1\n[a]\n', '[a]\nx = 1\nx = 2', '\0'])
def test_files_that_are_no_cfg(tmp_path, text):
  path = tmp_path / 'a.cfg'
  path.write_text(text)
  with pytest.raises(UserError, match='a.cfg cannot be read as a cfg'):
    cfg_files.read(path)
  with pytest.raises(UserError, match='cannot be read as a cfg'):
    cfg_files.read(tmp_path)


def test_large_files_are_refused(tmp_path):
  path = tmp_path / 'a.cfg'
  path.write_text('#' * (cfg_files.MAX_BYTES + 1))
  with pytest.raises(UserError, match='has more than 1,048,576 bytes'):
    cfg_files.read(path)


def test_the_model_equals_that_of_the_golden_checks():
  values = golden_values()
  sections = efficient_vdvae_cfg.fields(values, 'a.cfg')
  expected = networks.model_of(values)
  assert {name: getattr(expected, name) for name in sections['model']} == sections['model']
  assert sections['train']['skip_threshold'] == 800 and sections['optimizer']['clip_norm'] == 0
  assert sections['optimizer']['name'] == 'adamax' and sections['optimizer']['warmup_steps'] == 100


def load(path):
  spec = importlib.util.spec_from_file_location('written', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


def test_command_line(tmp_path, capsys):
  """The written file is a config, and its model can be made."""
  cfg, output = tmp_path / 'hparams-a\'"""b.cfg', tmp_path / 'written.py'
  values = golden_values()
  values['train']['total_train_steps'] = 123
  cfg.write_text(text_of(values))
  with flagsaver.flagsaver():
    assert convert.main(['convert', f'--hparams={cfg}', f'--output={output}']) == 0
  assert f'use it with --config={output}' in capsys.readouterr().out
  config = load(output)
  assert config.name == 'written' and config.train.num_steps == 123
  model = models.create(config.model.to_dict(), 'cpu')
  image = jax.ShapeDtypeStruct((1, 16, 16, 3), np.uint8)
  params, _ = jax.eval_shape(model.init, jax.random.key(0), {'image': image})
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 24_670
  with flagsaver.flagsaver():
    assert convert.main(['convert', f'--hparams={cfg}', f'--output={output}']) == 2
  assert 'written.py cannot be written' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('source', 'side', 'expected'),
  [
    ('celebAHQ', 256, celebahq256.get_config().data.name),
    ('binarized_mnist', 32, mnist.get_config().data.name),
    ('my_photos', 64, 'my_photos'),
  ],
)
def test_data_of_a_source(tmp_path, source, side, expected):
  values = golden_values()
  values['data'] |= {'dataset_source': source, 'target_res': side}
  values['data']['channels'] = 1 if 'mnist' in source else 3
  values['model'] |= {'down_strides': [4, 2, 1, 2, side // 16]}
  values['model']['up_strides'] = values['model']['down_strides'][::-1]
  values['model']['down_filters'] = values['model']['up_filters'] = [8] * 5
  values['model']['up_skip_filters'] = [8] * 5
  cfg = tmp_path / 'a.cfg'
  cfg.write_text(text_of(values))
  efficient_vdvae_cfg.write(cfg, tmp_path / 'a.py')
  config = load(tmp_path / 'a.py')
  assert config.data.name == expected and config.model.image_size == side
  assert config.model.likelihood == ('bernoulli' if 'mnist' in source else 'dmol')
  assert config.evals.published_bpd is None
  json.dumps(config.model.to_dict())


@pytest.mark.parametrize(
  ('section', 'key', 'value', 'message'),
  [
    ('model', 'down_latent_variates', [4, 4, 4, 4, 8], 'must have equal entries'),
    ('model', 'up_strides', [1, 2, 2, 1, 4], 'model.up_strides must be model.down_strides, rev'),
    ('model', 'up_skip_filters', [9, 8, 12, 12, 16], 'model.up_skip_filters must be those of'),
    ('model', 'up_kernel_size', [3, 3], 'config.model.up_kernel_size has 2 entries'),
    ('loss', 'variation_schedule', 'Cyclic', "config.model.beta_schedule='cyclic' must be one of"),
    ('optimizer', 'warmup_steps', 'soon', "invalid literal for int() with base 10: 'soon'"),
    ('loss', 'gamma_max_steps', None, 'correct the file'),
  ],
)
def test_settings_without_counterpart_are_named(section, key, value, message):
  values = golden_values()
  values[section][key] = value
  with pytest.raises(UserError, match=re.escape(message)):
    efficient_vdvae_cfg.fields(values, 'a.cfg')


def test_a_part_of_a_file_is_refused():
  values = golden_values()
  del values['loss']['scaled_gamma']
  with pytest.raises(UserError, match='a.cfg lacks loss.scaled_gamma; use the whole file'):
    efficient_vdvae_cfg.fields(values, 'a.cfg')


def test_no_skipping_and_adam_with_decay(tmp_path):
  """Infinity survives in the written file; the reference's Adam decays weights."""
  values = golden_values()
  values['optimizer'] |= {'gradient_skip': False, 'type': 'Adam'}
  values['loss']['use_weight_decay'] = True
  cfg, output = tmp_path / 'a.cfg', tmp_path / 'written.py'
  cfg.write_text(text_of(values))
  efficient_vdvae_cfg.write(cfg, output)
  config = load(output)
  assert config.train.skip_threshold == float('inf')
  assert config.optimizer.name == 'adamw'
  assert config.optimizer.weight_decay == values['loss']['l2_weight']


@pytest.mark.parametrize(
  ('section', 'key', 'value'),
  [
    ('model', 'up_n_blocks', ['a']),
    ('model', 'input_conv_filters', '48'),
    ('model', 'input_conv_filters', 1e400),
    ('data', 'dataset_source', ['cifar-10']),
  ],
)
def test_values_of_another_kind_are_refused(section, key, value):
  values = golden_values()
  values[section][key] = value
  with pytest.raises(UserError, match='--hparams=a.cfg|config.model'):
    efficient_vdvae_cfg.fields(values, 'a.cfg')
