"""Settings of mgp123/nvae by its own keys, translated to differences of a config.

A YAML file of that program has the section `training_parameters`. All other keys describe the
architecture; they may stand in a section of their own.
"""

from collections.abc import Mapping
from typing import Any

from configs.systems.nvae import MGP123

# key -> field of `model`
SAME = {
  'input_dimension': 'image_size',
  'channel_multiplier': 'channel_multiplier',
  'num_blocks_prepost': 'num_process_blocks',
  'number_of_scales': 'num_latent_scales',
  'initial_splits_per_scale': 'num_groups_per_scale',
  'exponential_scaling': 'group_divider',
  'min_splits': 'min_groups_per_scale',
  'cells_per_split_enc': 'num_cells_enc',
  'cells_per_input_dec': 'num_cells_dec',
  'latent_size': 'zdim',
  'num_flows': 'num_flows',
  'fixed_flows': 'fixed_flows',
  'sampling_method': 'likelihood',
  'n_mix': 'num_mixtures',
}
TWICE = {  # key -> two fields
  'channel_towers': ('num_channels_enc', 'num_channels_dec'),
  'num_cells_per_block_prepost': ('num_preprocess_cells', 'num_postprocess_cells'),
}
REQUIRED = (
  'channel_towers',
  'number_of_scales',
  'initial_splits_per_scale',
  'latent_size',
  'input_dimension',
  'num_flows',
)
DEFAULTS = dict(
  num_blocks_prepost=1,
  num_cells_per_block_prepost=2,
  cells_per_split_enc=2,
  cells_per_input_dec=1,
  channel_multiplier=2,
  exponential_scaling=1,
  min_splits=1,
  sampling_method='gaussian',
  n_mix=3,
  fixed_flows=False,
)
LIKELIHOODS = ('gaussian', 'gaussian_mixture', 'logistic_mixture')
TRAINING = dict(
  learning_rate=0.01,
  regularization_constant=0.05,
  kl_constant=1,
  warmup_epochs=30,
  batch_size=20,
  write_reconstruction=True,
  images_per_checkpoint=None,
  epochs_per_checkpoint=2,
  epochs=-1,
  gradient_clipping=None,
  half_precision=False,
  use_tensor_checkpoints=False,
)


def differences(
  architecture: Mapping[str, Any], training: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
  """Returns the differences from `configs/systems/nvae.py`, by section.

  Differs from the reference, which fails or misbehaves in these cases. A regularization_constant of
  0 and a channel_multiplier other than 2 work. The KL weights of the groups fit any number of
  splits. Clipping uses the norm of the true gradient. Samples during training do not change the
  batch statistics. An epoch has no short last batch.

  Raises:
    ValueError: a key is unknown or missing, or a value is out of range.
  """
  known = {**dict.fromkeys(REQUIRED), **DEFAULTS}
  _check_names('', architecture, known)
  _check_names('training_parameters.', training, TRAINING)
  if missing := [key for key in REQUIRED if key not in architecture]:
    raise ValueError(f'{", ".join(missing)} is missing; give it a number')
  a, t = {**DEFAULTS, **architecture}, {**TRAINING, **training}
  if a['sampling_method'] not in LIKELIHOODS:
    raise ValueError(
      f'sampling_method={a["sampling_method"]!r} must be one of {", ".join(LIKELIHOODS)}'
    )
  model = {field: a[key] for key, field in SAME.items()}
  model |= {field: a[key] for key, fields in TWICE.items() for field in fields}
  warmup, epochs = t['warmup_epochs'], t['epochs']
  return dict(
    model={
      **MGP123,
      **model,
      'weight_decay_norm': float(t['regularization_constant']),
      'kl_weight': float(t['kl_constant']),
      'kl_warmup_epochs': warmup,
      'dtype': 'bfloat16' if t['half_precision'] else 'float32',
      'remat': 'blocks' if t['use_tensor_checkpoints'] else 'auto',
    },
    optimizer=dict(
      learning_rate=float(t['learning_rate']),
      min_learning_rate=1e-5,
      warmup_steps=0,
      # The cosine begins an epoch late, and so does not reach its end.
      cosine_start=warmup + 1,
      cosine_epochs=max(epochs - warmup - 1, 0),
      clip_norm=float(t['gradient_clipping'] or 0),
    ),
    train=dict(
      precision='highest',  # the reference computes in float32
      batch_size=t['batch_size'],
      **_length(epochs),
      **_saving(t),
    ),
    evals=dict(pictures=dict(every=2000 if t['write_reconstruction'] else 0)),
  )


def _length(epochs: int) -> dict[str, Any]:
  """Returns the length of the training; without epochs the reference does not train at all."""
  return dict(num_epochs=epochs, num_steps=1) if epochs > 0 else dict(num_epochs=None, num_steps=0)


def _saving(t: Mapping[str, Any]) -> dict[str, Any]:
  """Returns how often checkpoints are saved."""
  if t['images_per_checkpoint']:
    return dict(save_every=-(-t['images_per_checkpoint'] // t['batch_size']), save_epochs=None)
  return dict(save_epochs=t['epochs_per_checkpoint'])


def _check_names(prefix: str, keys: Mapping[str, Any], known: Mapping[str, Any]) -> None:
  if unknown := sorted(map(str, set(keys) - set(known))):
    names = ', '.join(prefix + key for key in unknown)
    raise ValueError(f'{names} is not known; remove it, or correct it to one of {", ".join(known)}')
