"""Settings of mgp123/nvae by their own keys, and lengths of training in epochs."""

import hashlib

import ml_collections
import numpy as np
import pytest

from configs import celeba64, celebahq256, cifar10, images64, mnist, nvae_yaml
from configs.systems import nvae_mgp123, trainer
from hvae_tpu import commands, models
from hvae_tpu.training import epochs, optimizers

PENGUIN = """
input_dimension: 64
channel_towers: 32
number_of_scales: 3
initial_splits_per_scale: 6
latent_size: 20
num_flows: 0
cells_per_input_dec: 2
sampling_method: logistic_mixture
n_mix: 10
fixed_flows: False
training_parameters:
  learning_rate: 0.01
  regularization_constant: 0.1
  kl_constant: 1
  warmup_epochs: 50
  batch_size: 32
  write_reconstruction: False
  epochs_per_checkpoint: 1
  epochs: 200
  half_precision: True
  use_tensor_checkpoints: False
"""


@pytest.fixture
def load(tmp_path):
  def load(text: str, variant: str = '') -> ml_collections.ConfigDict:
    path = tmp_path / 'small.yaml'
    path.write_text(text)
    return nvae_yaml.get_config(f'{path}{variant}')

  return load


def test_a_file_as_it_is_gives_the_config_of_its_name(load):
  config, expected = load(PENGUIN), images64.get_config('nvae,penguin')
  assert (config.name, config.data.name) == ('nvae_yaml-small', 'images64')
  for section in ('model', 'optimizer', 'train', 'evals'):
    fields = expected[section].to_dict()
    fields.pop('image_size', None)
    assert {k: v for k, v in config[section].to_dict().items() if k in fields} == fields
  models.create(config.model.to_dict(), 'cpu')
  models.create(load(PENGUIN, ',debug').model.to_dict(), 'cpu')


def test_its_layers_are_those_of_nvae(load, tmp_path):
  load(PENGUIN)
  layers = commands.config_layers(f'configs/nvae_yaml.py:{tmp_path / "small.yaml"},debug')
  assert list(layers) == ['default', 'config file', 'variant']
  assert layers['default'].model.name == 'nvae'


def test_every_key_is_honoured(load):
  base = load(PENGUIN)
  changes = {
    'input_dimension: 64': 'input_dimension: 32',
    'channel_towers: 32': 'channel_towers: 16',
    'number_of_scales: 3': 'number_of_scales: 2',
    'splits_per_scale: 6': 'splits_per_scale: 4',
    'latent_size: 20': 'latent_size: 4',
    'num_flows: 0': 'num_flows: 1',
    'cells_per_input_dec: 2': 'cells_per_input_dec: 1',
    'logistic_mixture': 'gaussian_mixture',
    'n_mix: 10': 'n_mix: 5',
    'fixed_flows: False': 'fixed_flows: True',
    'learning_rate: 0.01': 'learning_rate: 0.02',
    'constant: 0.1': 'constant: 0',
    'kl_constant: 1': 'kl_constant: 2',
    'warmup_epochs: 50': 'warmup_epochs: 5',
    'batch_size: 32': 'batch_size: 8',
    'write_reconstruction: False': 'write_reconstruction: True',
    'epochs_per_checkpoint: 1': 'epochs_per_checkpoint: 7',
    ' epochs: 200': ' epochs: 20',
    'half_precision: True': 'half_precision: False',
    'tensor_checkpoints: False': 'tensor_checkpoints: True',
    'fixed_flows: False\n': 'fixed_flows: False\nmin_splits: 2\n',
    'n_mix: 10\n': 'n_mix: 10\nexponential_scaling: 2\n',
    'num_flows: 0\n': 'num_flows: 0\nnum_blocks_prepost: 2\nnum_cells_per_block_prepost: 3\n',
    'latent_size: 20\n': 'latent_size: 20\ncells_per_split_enc: 3\nchannel_multiplier: 3\n',
    '  epochs: 200\n': '  epochs: 200\n  gradient_clipping: 5\n  images_per_checkpoint: 100\n',
  }
  for old, new in changes.items():
    assert old in PENGUIN
    config = load(PENGUIN.replace(old, new))
    assert config.to_dict() != base.to_dict(), new
    assert config.data.name == f'images{config.model.image_size}'
    models.create(config.model.to_dict(), 'cpu')
    optimizers.create(config.optimizer, config.train.num_steps)


def test_architecture_may_stand_in_a_section(load):
  lines = PENGUIN.strip().splitlines()
  split = lines.index('training_parameters:')
  nested = ['model:', *('  ' + line for line in lines[:split]), *lines[split:]]
  assert load('\n'.join(nested)).to_dict() == load(PENGUIN).to_dict()


@pytest.mark.parametrize(
  ('old', 'new', 'message'),
  [
    ('n_mix: 10', 'n_mixtures: 10', 'n_mixtures is not known; remove it, or correct it to one of'),
    ('  kl_constant', '  kl_const', 'training_parameters.kl_const is not known'),
    ('latent_size: 20', '', 'latent_size is missing; give it a number'),
    ('logistic_mixture', 'logistic', "sampling_method='logistic' must be one of gaussian"),
    ('epochs: 200', 'epochs: [', 'is no sound YAML'),
  ],
)
def test_what_is_not_known_is_refused_by_name(load, old, new, message):
  with pytest.raises(ValueError) as caught:
    load(PENGUIN.replace(old, new))
  assert 'small.yaml' in str(caught.value) and message in str(caught.value)


def test_files_that_cannot_be_read(load, tmp_path):
  with pytest.raises(ValueError, match='needs a file'):
    nvae_yaml.get_config()
  with pytest.raises(ValueError, match='none.yaml cannot be read: No such file'):
    nvae_yaml.get_config(str(tmp_path / 'none.yaml'))
  with pytest.raises(ValueError, match='it holds a list, expected keys'):
    load('[1, 2]')


def test_no_epochs_train_nothing(load):
  config = load(PENGUIN.replace('  epochs: 200\n', ''))
  assert config.train.num_steps == 0 and config.train.num_epochs is None


def test_weights_of_the_groups_fit_where_the_reference_fails():
  config = nvae_mgp123.differences(
    dict(
      input_dimension=64,
      channel_towers=32,
      number_of_scales=3,
      initial_splits_per_scale=10,
      exponential_scaling=2,
      min_splits=5,
      latent_size=20,
      num_flows=0,
    ),
    {},
  )
  model = models.create({'name': 'nvae', **config['model'], 'remat': 'none'}, 'cpu')
  assert [run.count for run in model.bottom_up_runs] == [10, 5, 5]


@pytest.mark.parametrize(
  ('file', 'count'),
  [(cifar10, 50_000), (mnist, 60_000), (celeba64, 162_770), (celebahq256, 27_000)],
)
def test_views_that_are_required(file, count):
  """All training pictures, in their order."""
  order = np.arange(count, dtype='<i8').tobytes()
  expected = hashlib.sha256(order).hexdigest()
  assert file.get_config('nvae').data.require.split_sha256 == expected


def test_epochs_become_steps():
  config = trainer.base()
  config.model = {'steps_per_epoch': 1}
  config.train.update(batch_size=32, num_epochs=3, save_epochs=2)
  sentence = epochs.resolve(config, 100)
  assert (config.train.num_steps, config.train.save_every) == (9, 6)
  assert config.model.steps_per_epoch == config.optimizer.steps_per_epoch == 3
  assert 'train.num_steps=9' in sentence


def test_batches_go_across_epochs_elsewhere():
  config = trainer.base()
  config.model = {}
  config.train.update(batch_size=50, num_epochs=600)  # Clockwork VAE on MineRL
  epochs.resolve(config, 4805)
  assert config.train.num_steps == 57_660
  config.optimizer.schedule = 'cosine_epochs'
  epochs.resolve(config, 4805)
  assert config.train.num_steps == 600 * 96 and config.optimizer.steps_per_epoch == 96


def test_steps_stay_without_epochs():
  config = trainer.base()
  before = config.to_dict()
  assert epochs.resolve(config, 100) == ''
  assert config.to_dict() == before
