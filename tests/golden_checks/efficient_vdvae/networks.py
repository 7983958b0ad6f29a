"""Models, tables and tolerances, for all Efficient-VDVAE checks."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

import numpy as np

from hvae_tpu.importers import efficient_vdvae, tables
from hvae_tpu.importers.tables import Entry
from hvae_tpu.models.efficient_vdvae import EfficientVDVAE
from tests.support.golden_files import Golden, Tolerance

Cases = dict[str, Callable[[], None]]

SSIM = Tolerance(0, 1e-4)
# Fields of the model that have the reference's names.
LISTS = (
  'up_n_blocks_per_res',
  'up_n_blocks',
  'up_n_layers',
  'up_filters',
  'up_mid_filters_ratio',
  'up_kernel_size',
  'down_strides',
  'down_n_blocks_per_res',
  'down_n_blocks',
  'down_n_layers',
  'down_filters',
  'down_mid_filters_ratio',
  'down_kernel_size',
)
SAME_NAMES = (
  'input_conv_filters',
  'use_1x1_conv',
  'stable_init',
  'initialize_prior_weights_as_zero',
  'distribution_base',
  'gradient_smoothing_beta',
  'use_residual_distribution',
)


def model_of(config: Mapping[str, Any]) -> EfficientVDVAE:
  """Returns our model of a reference config.

  Loops are not unrolled: the runs are short, and a loop compiles faster than its copies.
  """
  model, loss = config['model'], config['loss']
  assert model['up_strides'] == model['down_strides'][::-1]
  (zdim,) = set(model['down_latent_variates'])
  ours = dataclasses.replace(
    head_of(config),
    **{name: tuple(model[name]) for name in LISTS},
    **{name: model[name] for name in SAME_NAMES},
    input_kernel_size=model['input_kernel_size'][0],
    output_kernel_size=model['output_kernel_size'][0],
    zdim=zdim,
    legacy_jax_logstd_kl=True,
    beta_schedule=loss['variation_schedule'].lower(),
    beta_start=loss['vae_beta_anneal_start'],
    beta_steps=loss['vae_beta_anneal_steps'],
    beta_min=loss['vae_beta_min'],
    beta_activation_step=loss['vae_beta_activation_steps'],
    beta_growth_rate=loss['vae_beta_growth_rate'],
    use_gamma_schedule=loss['use_gamma_schedule'],
    gamma_max_steps=loss['gamma_max_steps'],
    scaled_gamma=loss['scaled_gamma'],
    latent_active_threshold=config['metrics']['latent_active_threshold'],
    unroll='1',
  )
  widths = [run.skip for run in ours.up_runs for _ in range(run.count) if run.skip]
  assert widths == model['up_skip_filters']
  return ours


def head_of(config: Mapping[str, Any]) -> EfficientVDVAE:
  """Returns the likelihood of a reference config, with an arbitrary network."""
  model, data = config['model'], config['data']
  binary = data['dataset_source'] == 'binarized_mnist'
  return EfficientVDVAE(
    down_strides=(1,),
    image_size=data['target_res'],
    image_channels=data['channels'],
    num_bits=int(data['num_bits']),
    num_mixtures=model['num_output_mixtures'],
    output_distribution_base=model['output_distribution_base'],
    output_gradient_smoothing_beta=model['output_gradient_smoothing_beta'],
    likelihood='bernoulli' if binary else 'dmol',
    target_crop=2 if binary else 0,
    min_mol_logscale=config['loss']['min_mol_logscale'],
    output_temperature=config['synthesis']['output_temperature'],
  )


@functools.cache
def entries(model: EfficientVDVAE) -> list[Entry]:
  return efficient_vdvae.JAX.entries(model)


def read_params(golden: Golden, model: EfficientVDVAE) -> Any:
  return tables.import_params(entries(model), golden.under('param'), golden.path.name)


def compare_gradients(
  results: Mapping[str, Any], expected: Mapping[str, Any], rtol: float = 1e-3, atol: float = 1e-6
) -> None:
  """Compares the norm of every tensor's error with the norm of the tensor."""
  assert set(expected) <= set(results)
  for key, value in expected.items():
    error, size = np.linalg.norm(results[key] - value), np.linalg.norm(value)
    assert error <= rtol * size + atol, f'{key}: error {error:.3g}, norm {size:.3g}'
