"""Converts `hparams-*.cfg`, which lie beside checkpoints of Efficient-VDVAE, to our configs."""

from collections.abc import Callable
from pathlib import Path
import pprint
import re
from typing import Any

from hvae_tpu.errors import UserError
from hvae_tpu.importers import cfg_files
from hvae_tpu.models.efficient_vdvae import EfficientVDVAE, layout

# (data source, side of the images) -> our config file of that data set.
DATASETS = {
  ('binarized_mnist', 32): 'mnist',
  ('cifar-10', 32): 'cifar10',
  ('imagenet', 32): 'imagenet32_box',
  ('imagenet', 64): 'imagenet64_box',
  ('celebA', 64): 'celeba64',
  ('celebAHQ', 256): 'celebahq256',
  ('celebAHQ', 1024): 'celebahq1024',
  ('ffhq', 256): 'ffhq256',
  ('ffhq', 1024): 'ffhq1024',
}
# Our field of the model -> section and name in a cfg.
MODEL = {
  **{name: ('model', name) for name in (*layout.LISTS, 'down_strides')},
  'image_size': ('data', 'target_res'),
  'image_channels': ('data', 'channels'),
  'num_bits': ('data', 'num_bits'),
  'num_mixtures': ('model', 'num_output_mixtures'),
  'beta_start': ('loss', 'vae_beta_anneal_start'),
  'beta_steps': ('loss', 'vae_beta_anneal_steps'),
  'beta_min': ('loss', 'vae_beta_min'),
  'beta_activation_step': ('loss', 'vae_beta_activation_steps'),
  'beta_growth_rate': ('loss', 'vae_beta_growth_rate'),
  'latent_active_threshold': ('metrics', 'latent_active_threshold'),
  'output_temperature': ('synthesis', 'output_temperature'),
  **{
    name: ('model', name)
    for name in (
      'input_conv_filters',
      'use_1x1_conv',
      'stable_init',
      'initialize_prior_weights_as_zero',
      'distribution_base',
      'gradient_smoothing_beta',
      'use_residual_distribution',
      'output_distribution_base',
      'output_gradient_smoothing_beta',
    )
  },
  **{
    name: ('loss', name)
    for name in ('min_mol_logscale', 'use_gamma_schedule', 'gamma_max_steps', 'scaled_gamma')
  },
}
OPTIMIZER = {
  'learning_rate': 'learning_rate',
  'schedule': 'learning_rate_scheme',
  'warmup_steps': 'warmup_steps',
  'decay_start': 'decay_start',
  'decay_steps': 'decay_steps',
  'decay_rate': 'decay_rate',
  'min_learning_rate': 'min_learning_rate',
  'b1': 'beta1',
  'b2': 'beta2',
  'eps': 'epsilon',
}
INTEGERS = (  # numbers that a cfg may write with a point
  *('num_bits', 'image_size', 'image_channels', 'beta_start', 'beta_steps', 'gamma_max_steps'),
  *('beta_activation_step', 'warmup_steps', 'decay_start', 'decay_steps'),
)


def fields(values: cfg_files.Sections, path: str | Path) -> dict[str, dict[str, Any]]:
  """Returns the sections `model`, `optimizer` and `train` of our config, equivalent to a cfg.

  Args:
    values: values of the cfg.
    path: the cfg, for errors.

  Raises:
    UserError: a value is missing, or our models have nothing like it.
  """

  def get(section: str, key: str) -> Any:
    try:
      return values[section][key]
    except KeyError as error:
      raise UserError(f'--hparams={path} lacks {section}.{key}; use the whole file') from error

  try:
    sections = {
      'model': _model(get),
      'optimizer': {name: get('optimizer', theirs) for name, theirs in OPTIMIZER.items()},
      'train': _train(get),
    }
    sections['optimizer'] |= _optimizer(get)
    for name in INTEGERS:
      section = sections['optimizer' if name in OPTIMIZER else 'model']
      section[name] = int(section[name])
    EfficientVDVAE(**sections['model'])  # refuses fields that contradict each other
  except (ValueError, TypeError, IndexError, OverflowError, AttributeError) as error:
    raise UserError(f'--hparams={path}: {error}; correct the file') from error
  return sections


def _model(get: Callable[[str, str], Any]) -> dict[str, Any]:
  model = {name: get(*place) for name, place in MODEL.items()}
  model |= {name: tuple(model[name]) for name in (*layout.LISTS, 'down_strides')}
  for name in ('input_kernel_size', 'output_kernel_size'):
    model[name] = _single(get('model', name), f'model.{name}')
  model['zdim'] = _single(get('model', 'down_latent_variates'), 'model.down_latent_variates')
  if tuple(get('model', 'up_strides')) != model['down_strides'][::-1]:
    raise ValueError('model.up_strides must be model.down_strides, reversed')
  widths = layout.skip_widths(model['down_strides'], model['down_filters'])
  if tuple(get('model', 'up_skip_filters')) != widths:
    raise ValueError(f'model.up_skip_filters must be those of the top-down levels, {list(widths)}')
  model['beta_schedule'] = str(get('loss', 'variation_schedule')).lower()
  source = get('data', 'dataset_source')
  if not isinstance(source, str):
    raise ValueError(f'data.dataset_source={source!r} must be a text')
  binary = source == 'binarized_mnist'
  return model | {'likelihood': 'bernoulli' if binary else 'dmol', 'target_crop': 2 * binary}


def _single(values: Any, name: str) -> Any:
  distinct = set(values)
  if len(distinct) != 1:
    raise ValueError(f'{name}={values} must have equal entries')
  return distinct.pop()


# Its Adam decays weights if `use_weight_decay` is set.
OPTIMIZERS = {'adam': 'adamw'}


def _optimizer(get: Callable[[str, str], Any]) -> dict[str, Any]:
  name = str(get('optimizer', 'type')).lower()
  clip, decay = get('optimizer', 'clip_gradient_norm'), get('loss', 'use_weight_decay')
  return {
    'name': OPTIMIZERS.get(name, name),
    'clip_norm': float(get('optimizer', 'gradient_clip_norm_value') if clip else 0),
    'weight_decay': float(get('loss', 'l2_weight') if decay else 0),
  }


def _train(get: Callable[[str, str], Any]) -> dict[str, Any]:
  skip = get('optimizer', 'gradient_skip')
  return {
    'batch_size': get('train', 'batch_size'),
    'num_steps': int(get('train', 'total_train_steps')),
    'ema_decay': float(get('train', 'ema_decay')),
    'skip_threshold': float(get('optimizer', 'gradient_skip_threshold') if skip else 'inf'),
  }


TEMPLATE = '''"""Efficient-VDVAE as in {cfg}; made by `python -m hvae_tpu.convert --hparams`."""

from {package} import {module}

FIELDS = {fields}


def get_config():
  """See above."""
  config = {module}.{call}
  config.update(FIELDS)
  config.name = {name!r}
  return config
'''


def write(cfg: str | Path, output: str | Path) -> None:
  """Writes our config, a Python file for `--config`, that is equivalent to a cfg.

  Raises:
    UserError: the cfg cannot be read or has no counterpart, or `output` exists.
  """
  values, output = cfg_files.read(cfg), Path(output)
  config = {**fields(values, cfg), 'evals': {'published_bpd': None}}
  dataset = values['data']['dataset_source'], config['model']['image_size']
  text = {
    'package': 'configs',
    'module': DATASETS.get(dataset),
    'call': "get_config('efficient_vdvae')",
  }
  if dataset not in DATASETS:
    text = {'package': 'configs.systems', 'module': 'efficient_vdvae', 'call': 'base()'}
    config['data'] = {'name': str(dataset[0])}
  source = TEMPLATE.format(
    cfg=re.sub(r'[^\w.-]', '_', Path(cfg).name),  # a file name must not end the docstring
    # Infinity has no literal; it stands for "no update is skipped".
    fields=pprint.pformat(config, width=96, compact=True, sort_dicts=False).replace(
      "'skip_threshold': inf", "'skip_threshold': float('inf')"
    ),
    name=output.stem,
    **text,
  )
  try:
    with open(output, 'x') as file:
      file.write(source)
  except OSError as error:
    raise UserError(f'--output={output} cannot be written ({error}); give a new file') from error
