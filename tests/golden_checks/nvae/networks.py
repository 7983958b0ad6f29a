"""Models, tables and tolerances, for all NVAE checks."""

from collections.abc import Callable, Mapping
import functools
from typing import Any

from flax import traverse_util
import numpy as np

from configs.systems.nvae import MGP123
from hvae_tpu.importers import nvae, tables
from hvae_tpu.importers.nvae.table import STATISTICS, Names
from hvae_tpu.importers.tables import Entry
from hvae_tpu.models.nvae import NVAE, regularisers
from tests.support.golden_files import Golden, Tolerance, difference

Cases = dict[str, Callable[[], None]]

COMPONENT = Tolerance(1e-5, 1e-5)
BUFFERS = Tolerance(1e-4, 1e-5)
SPECTRAL = Tolerance(1e-4, 0)
SCHEDULE = Tolerance(1e-6, 1e-6)


def is_seed(config: Mapping[str, Any]) -> bool:
  return 'channel_towers' in config


def names_of(golden: Golden, model: NVAE) -> Names:
  return (nvae.mgp123_names if is_seed(golden.config) else nvae.nvlabs_names)(model)


def config_of(golden: Golden) -> dict[str, Any]:
  """Returns the config of a file, with the shape [C, H, W] of its images as `_image`."""
  return {**golden.config, '_image': golden['input/x'].shape[1:]}


def model_of(config: Mapping[str, Any], **changes: Any) -> NVAE:
  """Returns our model of a reference config, which for the release comes from `config_of`.

  Loops are unrolled: on a CPU, gradients of loops over convolutions run slowly, and compile slowly.
  """
  fields = _seed_fields(config) if is_seed(config) else _official_fields(config)
  return NVAE(**{**fields, 'unroll': 'full', **changes})


def _official_fields(c: Mapping[str, Any]) -> dict[str, Any]:
  assert c['num_preprocess_blocks'] == c['num_postprocess_blocks']
  channels, side, width = c['_image']
  assert side == width
  binary = channels == 1
  likelihood = 'bernoulli' if binary else 'dmol' if c['num_mixture_dec'] > 1 else 'normal'
  return dict(
    image_size=side,
    image_channels=channels,
    target_crop=2 if binary else 0,
    likelihood=likelihood,
    num_mixtures=c['num_mixture_dec'],
    num_bits=c['num_x_bits'],
    num_channels_enc=c['num_channels_enc'],
    num_channels_dec=c['num_channels_dec'],
    num_process_blocks=c['num_preprocess_blocks'],
    num_preprocess_cells=c['num_preprocess_cells'],
    num_postprocess_cells=c['num_postprocess_cells'],
    num_latent_scales=c['num_latent_scales'],
    num_groups_per_scale=c['num_groups_per_scale'],
    group_divider=2 if c['ada_groups'] else 1,
    min_groups_per_scale=c['min_groups_per_scale'],
    num_cells_enc=c['num_cell_per_cond_enc'],
    num_cells_dec=c['num_cell_per_cond_dec'],
    zdim=c['num_latent_per_group'],
    num_flows=c['num_nf'],
    arch_instance=c['arch_instance'],
    residual_posterior=c['res_dist'],
    se='sixteenth' if c['use_se'] else 'none',
    # The weight of the KL is constant: its smallest value.
    kl_min=c['_loss']['kl_coeff'],
    kl_anneal_steps=1e9,
    weight_decay_norm=c['_loss']['wdn'],
  )


def _seed_fields(c: Mapping[str, Any]) -> dict[str, Any]:
  loss = c['_loss']
  return {
    **MGP123,
    **dict(
      image_size=c['input_dimension'],
      likelihood=c['sampling_method'],
      num_mixtures=c['n_mix'],
      num_channels_enc=c['channel_towers'],
      num_channels_dec=c['channel_towers'],
      channel_multiplier=c['channel_multiplier'],
      num_process_blocks=c['num_blocks_prepost'],
      num_preprocess_cells=c['num_cells_per_block_prepost'],
      num_postprocess_cells=c['num_cells_per_block_prepost'],
      num_latent_scales=c['number_of_scales'],
      num_groups_per_scale=c['initial_splits_per_scale'],
      group_divider=c['exponential_scaling'],
      min_groups_per_scale=c['min_splits'],
      num_cells_enc=c['cells_per_split_enc'],
      num_cells_dec=c['cells_per_input_dec'],
      zdim=c['latent_size'],
      num_flows=c['num_flows'],
      fixed_flows=c['fixed_flows'],
      kl_warmup_epochs=loss['warmup_epochs'],
      kl_weight=float(loss['kl_constant']),
      weight_decay_norm=loss['regularization_constant'],
    ),
  }


@functools.cache
def entries(golden: Golden) -> dict[str, list[Entry]]:
  model = model_of(config_of(golden))
  return (nvae.MGP123 if is_seed(golden.config) else nvae.NVLABS).tables(model)


def read(golden: Golden) -> tuple[Any, Any]:
  """Parameters and state; the state has the singular vectors that the file starts from."""
  tensors = nvae.split_statistics(golden.under('param'), {}, {})
  file = golden.path.name
  params, state = (
    tables.import_params(entries(golden)[field], tensors.fields[field], file)
    for field in ('params', 'model_state')
  )
  if not is_seed(golden.config):
    state['singular'] = singular(golden, params, golden.under('input/sr_u0'))
  return params, state


def kernel_places(golden: Golden) -> dict[str, tuple[tuple[str, ...], int | None]]:
  """Returns name of a convolution in the reference -> (path of its kernel in ours, index)."""
  return {
    entry.key.rpartition('.')[0]: (entry.path, entry.index)
    for entry in entries(golden)['params']
    if entry.path[-1] == 'kernel' and len(entry.shape) == 4
  }


def singular(golden: Golden, params: Any, stored: Mapping[str, np.ndarray]) -> Any:
  """Vectors of all convolutions of a shape, in the file's order -> our tree."""
  places, layers = kernel_places(golden), golden.config['_sr_layers']
  slices: dict[tuple[str, ...], dict] = {}
  for shape, names in layers.items():
    for name, vector in zip(names, stored[shape], strict=True):
      path, index = places[name]
      slices.setdefault(path, {})[index] = vector
  flat = {
    path: rows[None] if None in rows else np.stack([rows[i] for i in sorted(rows)])
    for path, rows in slices.items()
  }
  assert set(flat) == set(regularisers.matrices(params, 'left'))
  return traverse_util.unflatten_dict(flat)


def vectors_by_shape(golden: Golden, tree: Any) -> dict[str, np.ndarray]:
  """Returns shape -> vectors in the file's order; the inverse of `singular`."""
  flat, places = traverse_util.flatten_dict(tree), kernel_places(golden)
  row = lambda path, index: flat[path] if index is None else flat[path][index]
  return {
    shape: np.stack([row(*places[name]) for name in names])
    for shape, names in golden.config['_sr_layers'].items()
  }


def statistics(golden: Golden, state: Any, names: list[str]) -> np.ndarray:
  """Returns running statistics in the order of a file's list."""
  part = {'batch_stats': state['batch_stats']}
  results = tables.export_params(entries(golden)['model_state'], part)
  assert {name.rpartition('.')[2] for name in names} <= set(STATISTICS.values())
  return np.concatenate([results[name].reshape(-1) for name in names])


def compare_gradients(
  results: Mapping[str, Any], expected: Mapping[str, Any], total: float, rtol: float = 1e-3
) -> None:
  """Compares the error of every tensor with the norms of the tensor and of all."""
  assert set(expected) <= set(results)
  for key, value in expected.items():
    error, size = np.linalg.norm(results[key] - value), np.linalg.norm(value)
    assert error <= rtol * size + 1e-5 * total, f'{key}: error {error:.3g}, norm {size:.3g}'


def mostly(results: Any, expected: Any) -> None:
  """Compares element-wise log-probabilities: nine of ten to 1e-4, all to 1e-2.

  Differences of sigmoids, and narrow Gaussians, lose digits in float32.
  """
  results, expected = np.asarray(results), np.asarray(expected)
  assert not (text := difference(results, expected, Tolerance(1e-5, 1e-2))), text
  close = np.abs(results - expected) <= 1e-5 * np.abs(expected) + 1e-4
  assert close.mean() >= 0.9, f'{1 - close.mean():.1%} are off'
