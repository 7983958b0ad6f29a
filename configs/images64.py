"""Any folder of pictures at 64x64: nvae[,VARIANT], the models of mgp123/nvae; also with ,debug.

    python -m hvae_tpu.main --config=configs/images64.py:nvae,penguin

VARIANT is the name of a YAML file of that program, for which only samples are published. nvae:
6,329,844 parameters. tiny: 32,584,410 parameters. gaussian_mixture: 6,335,934 parameters.
gaussian_mixture5latent: 25,381,266 parameters. logistic_mixture10latent: 25,394,316 parameters.
big_logistic_mixture20latentnoflows: 18,584,772 parameters. large_logistic_mixture20latentnoflows:
32,262,692 parameters. penguin: 36,689,892 parameters.

Files without a number of epochs train nothing in that program; here they train for 100. For your
own YAML file see `configs/nvae_yaml.py`.
"""

from configs import systems
from configs.systems.nvae_mgp123 import differences

DATA = dict(
  data=dict(name='images64', valid_split='valid', test_split='valid'), model=dict(image_size=64)
)
_SMALL = dict(
  input_dimension=64,
  channel_towers=32,
  number_of_scales=3,
  initial_splits_per_scale=1,
  latent_size=2,
  num_flows=0,
  cells_per_input_dec=2,
)
_TEN = dict(sampling_method='logistic_mixture', n_mix=10)
_LARGE = dict(_SMALL, **_TEN, latent_size=20)


def _variant(architecture, **training):
  return differences(architecture, {'epochs': 100, **training})


DIFFERENCES = {
  'nvae': {
    'nvae': _variant(_SMALL),
    'tiny': _variant(
      dict(
        _SMALL,
        channel_towers=64,
        latent_size=1,
        num_flows=1,
        fixed_flows=True,
        cells_per_split_enc=3,
        cells_per_input_dec=3,
      )
    ),
    'gaussian_mixture': _variant(dict(_SMALL, sampling_method='gaussian_mixture', n_mix=3)),
    'gaussian_mixture5latent': _variant(
      dict(_SMALL, number_of_scales=4, latent_size=10, sampling_method='gaussian_mixture', n_mix=5),
      batch_size=16,
    ),
    'logistic_mixture10latent': _variant(
      dict(_SMALL, **_TEN, number_of_scales=4, latent_size=10, fixed_flows=True),
      warmup_epochs=60,
      batch_size=32,
      write_reconstruction=False,
      epochs=400,
    ),
    'big_logistic_mixture20latentnoflows': _variant(
      dict(_LARGE, initial_splits_per_scale=3, fixed_flows=True),
      regularization_constant=0.1,
      warmup_epochs=50,
      batch_size=40,
      write_reconstruction=False,
      epochs=200,
    ),
    'large_logistic_mixture20latentnoflows': _variant(
      dict(
        _LARGE,
        initial_splits_per_scale=10,
        exponential_scaling=2,
        min_splits=5,
        fixed_flows=True,
      ),
      regularization_constant=0.1,
      warmup_epochs=50,
      batch_size=16,
      epochs_per_checkpoint=1,
    ),
    'penguin': _variant(
      dict(_LARGE, initial_splits_per_scale=6, fixed_flows=False),
      regularization_constant=0.1,
      warmup_epochs=50,
      batch_size=32,
      write_reconstruction=False,
      epochs_per_checkpoint=1,
      epochs=200,
      half_precision=True,
    ),
  }
}


def get_config(argument='nvae'):
  """Returns the config of `system[,variant...]`."""
  return systems.build('images64', argument, DATA, DIFFERENCES)
