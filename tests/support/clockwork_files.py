"""Checkpoints of both codes of the Clockwork VAE with the same weights, for tests of imports."""

from pathlib import Path

from flax import serialization, traverse_util
import numpy as np

from hvae_tpu.importers import cwvae
from hvae_tpu.models.cwvae import CWVAE

STEP = 5000
Arrays = dict[str, np.ndarray]


def arrays(model: CWVAE) -> Arrays:
  """Returns random weights by the names of the port."""
  rng = np.random.default_rng(0)
  normal = lambda shape: rng.standard_normal(shape, np.float32) * np.float32(0.1)
  return {e.key: normal(e.shape) for e in cwvae.JAX.entries(model)}


def write_port(folder: Path, weights: Arrays) -> Path:
  """Writes the pair (optimizer, random key), with the moments of Adam."""
  tree = traverse_util.unflatten_dict(weights, sep='/')
  moments = traverse_util.unflatten_dict(
    {f'{key}/{m}': np.ones_like(v) for key, v in weights.items() for m in ('grad_ema', 'grad_sq')},
    sep='/',
  )
  state = {'step': np.int32(STEP), 'param_states': {'params': moments}}
  optimizer = {'target': {'params': tree}, 'state': state}
  path = folder / f'checkpoint_{STEP}'
  path.write_bytes(serialization.msgpack_serialize({'0': optimizer, '1': np.zeros(2, np.uint32)}))
  return path


def write_official(folder: Path, weights: Arrays) -> Path:
  """Writes a checkpoint of TensorFlow 1, with the moments of Adam; returns the prefix."""
  variables = _variables(weights)
  slots = {f'{k}/{m}': np.ones_like(v) for k, v in variables.items() for m in ('Adam', 'Adam_1')}
  powers = {'beta1_power': np.float32(0.5), 'beta2_power': np.float32(0.9)}
  return save(folder / 'model.ckpt', {**variables, **slots, **powers, 'step': np.int64(STEP)})


def save(prefix: Path, tensors: Arrays) -> Path:
  """Saves a TensorFlow checkpoint of these names."""
  import tensorflow as tf

  everything = [''] * len(tensors)
  tf.raw_ops.SaveV2(
    prefix=str(prefix),
    tensor_names=list(tensors),
    shape_and_slices=everything,
    tensors=[tf.constant(array) for array in tensors.values()],
  )
  return prefix


def _variables(weights: Arrays) -> Arrays:
  """Names and layouts of the official code: layers are numbered in the order of creation."""
  tree = traverse_util.unflatten_dict(weights, sep='/')
  cells = [tree['model'][f'RSSMCell_{i}'] for i in range(len(tree['model']))]
  encoder, decoder, dense, variables = tree['encoder'], tree['decoder'], [], {}

  def add(scope: str, kind: str, number: int, leaves: Arrays) -> None:
    name = f'{scope}/{kind}_{number}' if number else f'{scope}/{kind}'
    variables.update({f'{name}/{leaf}': array for leaf, array in leaves.items()})

  dense += [('encoder_convdense', encoder[f'Dense_{i}']) for i in range(len(encoder) - 4)]
  for level in reversed(range(len(cells))):
    for side in ('RSSMPrior_0', 'RSSMPosterior_0'):
      scope = f'scan/while/cell_{level}' + ('' if side == 'RSSMPrior_0' else '_1')
      dense += [(scope, cells[level][side][f'Dense_{i}']) for i in range(4)]
    gru = _gru(cells[level]['RSSMPrior_0']['GRUCell_0'])
    add(f'scan/while/cell_{level}', 'gru_cell', level, gru)
  for number, (scope, leaves) in enumerate([*dense, ('decoder_conv', decoder['Dense_0'])]):
    add(scope, 'dense', number, leaves)
  for i in range(4):
    add('encoder_convdense', 'conv2d', i, encoder[f'Conv_{i}'])
    leaves = decoder[f'ConvTranspose_{i}']
    kernel = leaves['kernel'].transpose(0, 1, 3, 2)[::-1, ::-1]
    add('decoder_conv', 'conv2d_transpose', i, {**leaves, 'kernel': kernel})
  return variables


def _gru(leaves: dict[str, Arrays]) -> Arrays:
  """Returns weights of a GRU; the first row of `bias` is the input's, a merged bias is whole."""
  join = lambda side, leaf: [leaves[f'{side}{gate}'][leaf] for gate in 'zrn']
  bias = np.concatenate(join('i', 'bias'))
  of_state = np.zeros_like(bias)
  of_state[-len(leaves['hn']['bias']) :] = leaves['hn']['bias']
  return {
    'kernel': np.concatenate(join('i', 'kernel'), 1),
    'recurrent_kernel': np.concatenate(join('h', 'kernel'), 1),
    'bias': np.stack([bias, of_state]),
  }
