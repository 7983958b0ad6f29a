"""Models, weights, noise and tolerances, for all EfficientMORL checks."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from hvae_tpu.importers import efficient_morl, tables
from hvae_tpu.models.efficient_morl import EfficientMORL
from hvae_tpu.models.efficient_morl.slot_attention import SlotAttention
from tests.support.golden_files import Golden, Tolerance

Cases = dict[str, Callable[[], None]]
Model = EfficientMORL | SlotAttention

# Float32 against float32 of another program.
ARRAY = Tolerance(2e-5, 2e-5)
LOSS = Tolerance(2e-5, 1e-3)
KL = Tolerance(1e-5, 0)
REFINING = Tolerance(0, 0, of_max=5e-5)
GRADIENT = Tolerance(0, 0, of_max=1e-4)
LIKELIHOODS = {'Gaussian': 'gaussian', 'GMM': 'mixture'}
# Mathematically zero: the stored values are rounding noise.
ZERO = ('norm_slots.bias',)
ZERO_OF_EQUAL_SLOTS = ('to_q.weight', 'to_k.weight', 'norm_slots.weight')


def model_of(net: Mapping[str, Any], **fields: Any) -> EfficientMORL:
  """Returns our model of a reference's settings; `fields` override them."""
  channels, side, width = net['input_size']
  assert channels == 3 and side == width
  prior = 'reversed_plus' if net['reverse_prior_plusplus'] else 'reversed'
  return EfficientMORL(
    **dict(
      image_size=side,
      num_slots=net['K'],
      zdim=net['z_size'],
      stochastic_layers=net['stochastic_layers'],
      use_dual_gru=net['use_DualGRU'],
      image_decoder=net['image_decoder'],
      likelihood=LIKELIHOODS[net['image_likelihood']],
      log_scale=net['log_scale'],
      prior='bottom_up' if net['bottom_up_prior'] else prior,
      refinement_iters=net['refinement_iters'],
      refinement_curriculum=((-1, net['refinement_iters']),),
      geco_warm_start=net['geco_warm_start'],
    )
    | fields
  )


def read_params(golden: Golden, model: Model, variant: str = '') -> Any:
  """Reads the weights of a file; weights under `param@<variant>` override them."""
  tensors = golden.under('param') | golden.under(f'param@{variant}')
  entries = efficient_morl.PYTORCH.entries(model)
  missing = {entry.key for entry in entries} - set(tensors)
  assert not missing, missing
  return tables.import_params(entries, {entry.key: tensors[entry.key] for entry in entries})


def images(golden: Golden, key: str = 'input/image_u8_nchw') -> np.ndarray:
  return golden[key].transpose(0, 2, 3, 1)


def pattern(name: str, size: int) -> np.ndarray:
  """Returns the `size` numbers that replace a draw in a noise mode."""
  if name == 'epsd':
    return (np.sqrt(2) * np.sin(0.7 * np.arange(size) + 1)).astype(np.float32)
  return np.full(size, float(name.removeprefix('eps')), np.float32)


def repeated(values: Any) -> Callable[..., Any]:
  """Draws that all hold the same numbers, also those that one call makes together."""
  return lambda rng, shape: jnp.resize(values, shape)


def named_gradients(model: Model, grads: Any) -> dict[str, np.ndarray]:
  return tables.export_params(efficient_morl.PYTORCH.entries(model), grads)


def meaningful(mode: str) -> Callable[[str], bool]:
  """Returns a test by name for gradients that are not zero in exact arithmetic."""
  zero = ZERO + (() if mode == 'epsd' else ZERO_OF_EQUAL_SLOTS)
  return lambda name: not name.endswith(zero)


def masked_bias(name: str, gradient: np.ndarray) -> np.ndarray:
  """Removes the bias of the mask's logit, whose gradient is zero in exact arithmetic."""
  last = name.endswith('bias') and '.decode.' in name and gradient.shape == (4,)
  return gradient[:3] if last else gradient
