"""The table of modes, their options and descriptions, and `--mode=config`."""

import dataclasses

import pytest

from hvae_tpu import commands, main, models, settings
from hvae_tpu.modes import MODES, show_config

WITH_OPTIONS = [name for name, mode in MODES.items() if hasattr(mode, 'Options')]


def test_help_names_the_modes_without_importing_them():
  descriptions = main.mode_descriptions()
  assert set(descriptions) == set(MODES)
  for name, text in descriptions.items():
    assert MODES[name].__doc__.splitlines()[0].rstrip('.') == f'`--mode={name}`: {text}'


@pytest.mark.parametrize('name', WITH_OPTIONS)
def test_options_have_allowed_defaults_and_comments(name):
  options = MODES[name].Options
  assert not settings.problems(options(), f'config.{name}')
  comments = show_config.field_comments(options)
  assert set(comments) >= {field.name for field in dataclasses.fields(options)} - {
    'psnr_data_range'  # the same as the field before it
  }


def test_comments_are_those_of_the_source():
  comments = show_config.section_comments('vdvae')
  assert comments['sample.output_temperature'] == "temperature of pixels; None: the model's"
  assert comments['explore.refresh_num'] == 'samples in each of these batches'  # of a base class
  assert comments['decode.keep'].endswith('the others are drawn from the prior; -1: keep all')
  assert {key.split('.')[0] for key in comments} >= {'data', 'train', 'evals', 'model', 'sample'}


def test_sources_of_values():
  layers = commands.config_layers('configs/ffhq256.py:efficient_vdvae,5bit,c1')
  assert list(layers) == ['default', 'config file', 'variant']
  config = layers['variant'].copy_and_resolve_references()
  config.sample.num = 3
  sources = show_config.value_sources(config, layers, {'sample.seed'})
  assert sources['sample.num'] == sources['sample.seed'] == 'command line'
  assert sources['model.num_bits'] == sources['evals.published_bpd'] == 'variant'
  assert sources['data.train_split'] == sources['evals.pictures.num'] == 'config file'
  assert sources['model.beta_steps'] == sources['sample.split'] == 'default'
  assert set(sources.values()) == {'default', 'config file', 'variant', 'command line'}


def test_debug_is_a_variant_and_a_bare_argument_has_none():
  layers = commands.config_layers('configs/demo_mnist.py:vdvae,debug')
  sources = show_config.value_sources(layers['variant'], layers, set())
  assert sources['model.width'] == 'variant' and sources['data.name'] == 'config file'
  assert list(commands.config_layers('configs/demo_mnist.py')) == ['default', 'config file']


def test_a_config_that_names_no_systems_has_no_defaults(tmp_path):
  path = tmp_path / 'own.py'
  path.write_text(
    'from configs import demo_mnist\n\n\n'
    'def get_config():\n  config = demo_mnist.get_config()\n  config.seed = 3\n  return config\n'
  )
  layers = commands.config_layers(str(path))
  assert set(show_config.value_sources(layers['config file'], layers, set()).values()) == {
    'config file'
  }


def test_config_is_printed_without_data_or_work_directory(command, tmp_path, monkeypatch):
  monkeypatch.setenv('HVAE_DATA', str(tmp_path / 'none'))
  code, out, err = command(
    '--config=configs/demo_mnist.py:vdvae,debug',
    f'--workdir={tmp_path / "run"}',
    '--mode=config',
    '--config.train.num_steps=7',
    '--config.sample.num=8',  # its default
  )
  assert code == 0, err
  lines = {line.split(' = ')[0]: line for line in out.splitlines()}
  config = commands.load_config('configs/demo_mnist.py:vdvae,debug')
  assert len(lines) == len(show_config.flatten(config.to_dict()))
  assert lines['config.train.num_steps'].startswith('config.train.num_steps = 7 ')
  for key, source in (
    ('train.num_steps', 'command line'),
    ('sample.num', 'command line'),
    ('model.width', 'variant'),
    ('data.name', 'config file'),
    ('sample.seed', 'default'),
  ):
    assert lines[f'config.{key}'].split('  # ')[0].rstrip().endswith(f' {source}'), key
  assert lines['config.sample.seed'].endswith('# seed of all noise')
  assert not (tmp_path / 'run').exists()


def test_models_are_sections_too():
  assert set(show_config.field_comments(models.MODELS['vdvae'])) >= {'width', 'zdim'}
