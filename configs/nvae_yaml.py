"""Config from an unchanged YAML file of mgp123/nvae: `--config=configs/nvae_yaml.py:PATH`.

    python -m hvae_tpu.main --config=configs/nvae_yaml.py:configs/penguin.yaml

Every key is used, or refused by its name. `configs/systems/nvae_mgp123.py` tells where training
differs from that program. A file without `epochs` trains nothing: set `--config.train.num_epochs`.

The data set is `images<input_dimension>` unless `--config.data.name` says otherwise:

    python -m data_prep.build image_folder --raw=photos/ --variant=size=64 --as=images64

It contains centred squares. The reference resizes the shorter side to 64, whatever the file says,
and does not crop, so there only square pictures at `input_dimension: 64` train.
"""

import pathlib
from typing import Any

import yaml

from configs import systems
from configs.systems import nvae_mgp123

DATA = dict(data=dict(valid_split='valid', test_split='valid'))


def get_config(argument=''):
  """Returns the config of `PATH[,variant...]`."""
  if not argument:
    raise ValueError('configs/nvae_yaml.py needs a file: --config=configs/nvae_yaml.py:PATH')
  path, *variants = argument.split(',')
  try:
    content = yaml.safe_load(pathlib.Path(path).read_text())
    differences = nvae_mgp123.differences(*_sections(content))
  except OSError as error:
    raise ValueError(f'{path} cannot be read: {error.strerror}; give a YAML file') from error
  except yaml.YAMLError as error:
    raise ValueError(f'{path} is no sound YAML: {" ".join(str(error).split())}') from error
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  stem = pathlib.Path(path).stem
  config = systems.build(
    'nvae_yaml', ','.join(['nvae', *variants]), DATA, {'nvae': {'nvae': differences}}
  )
  config.data.name = f'images{config.model.image_size}'
  config.name = '-'.join(['nvae_yaml', stem, *variants])
  return config


def _sections(content: Any) -> tuple[dict[str, Any], dict[str, Any]]:
  """Splits the keys of a file into architecture and training."""
  if not isinstance(content, dict):
    raise ValueError(f'it holds a {type(content).__name__}, expected keys with values')
  training, architecture = content.get('training_parameters') or {}, {}
  for key, value in content.items():
    if key != 'training_parameters':
      architecture |= value if isinstance(value, dict) else {key: value}
  return architecture, training
