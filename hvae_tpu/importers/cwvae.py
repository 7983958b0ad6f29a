"""Checkpoints of the Clockwork VAE: its JAX port, and the official TensorFlow code.

The port stores Flax msgpack of (optimizer, random key).

The official code stores TensorFlow checkpoints; an .npz file of its variables will do too. Its
layers are recognised by the number that Keras gave them in the order of creation (encoder, levels
from the top, decoder), whatever their scopes are. A Keras GRU has two biases for each gate. Only
their sums matter, except for the new state; so they are merged, and their Adam slots are left.
"""

from collections.abc import Iterator, Mapping
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.importers import tables, trees
from hvae_tpu.importers.formats import Contents, Format, Meta
from hvae_tpu.importers.tables import Path, Row
from hvae_tpu.models.cwvae import CWVAE
from hvae_tpu.models.protocol import Batch
from hvae_tpu.storage.tensor_files import Container

GATES = ('r', 'z', 'n')  # reset, update, new: the order of our stacks
KERAS_GATES = ('z', 'r', 'n')  # the order of the blocks of a kernel
# Ours -> the port's, inside `RSSMPrior_0` and `RSSMPosterior_0`.
LAYERS = {
  ('{}_input',): 'Dense_0',
  ('{}_hidden',): 'Dense_1',
  ('{}_head', 'mean'): 'Dense_2',
  ('{}_head', 'std'): 'Dense_3',
}
VARIABLE = re.compile(
  r'(?:.*/)?(conv2d_transpose|conv2d|dense|gru_cell)(?:_(\d+))?/(kernel|recurrent_kernel|bias)'
)
LEAVES = dict.fromkeys(('conv2d', 'conv2d_transpose', 'dense'), ('kernel', 'bias'))
LEAVES |= {'gru_cell': ('kernel', 'recurrent_kernel', 'bias')}
DENSE_IN_A_CELL = 8  # four layers of the prior, four of the posterior


def _frame(model: CWVAE, meta: Meta) -> Batch:
  """Returns the shapes of a batch of one frame."""
  shape = (1, 1, model.image_size, model.image_size, model.image_channels)
  return {'video': jax.ShapeDtypeStruct(shape, jnp.uint8)}


def _rows(model: CWVAE) -> dict[str, list[Row]]:
  layer = lambda path, key: tables.FLAX.layer(path, None, key)
  rows = []
  for i in range(4):
    rows += layer(('encoder', f'conv_{i}'), f'encoder/Conv_{i}')
  depth = len(model.dense_sizes)
  for level in range(1, model.levels):
    for i in range(depth):
      number = (level - 1) * depth + i
      rows += layer((f'embed_{level - 1}_{i}',), f'encoder/Dense_{number}')
  for level in range(model.levels):
    path, name = (f'cells_{level}',), f'model/RSSMCell_{level}'
    for side in ('prior', 'posterior'):
      for ours, theirs in LAYERS.items():
        key = f'{name}/RSSM{side.capitalize()}_0/{theirs}'
        rows += layer((*path, *(part.format(side) for part in ours)), key)
    rows += _gru_rows((*path, 'gru'), f'{name}/RSSMPrior_0/GRUCell_0')
  rows += layer(('decoder', 'dense'), 'decoder/Dense_0')
  for i in range(4):
    rows += layer(('decoder', f'deconv_{i}'), f'decoder/ConvTranspose_{i}')
  return {'params': rows}


def _gru_rows(path: Path, key: str) -> list[Row]:
  rows = [Row((*path, 'new_bias'), None, f'{key}/hn/bias', tables.SAME)]
  for index, gate in enumerate(GATES):
    rows += [
      Row((*path, 'input_kernel'), index, f'{key}/i{gate}/kernel', tables.SAME),
      Row((*path, 'input_bias'), index, f'{key}/i{gate}/bias', tables.SAME),
      Row((*path, 'recurrent_kernel'), index, f'{key}/h{gate}/kernel', tables.SAME),
    ]
  return rows


def _tensorflow_contents(container: Container) -> Contents:
  """Reads the weights, in the names and layouts of the port.

  The optimizer's variables are set aside: `Adam` and `Adam_1`, which end the names of its moments,
  and a few numbers.
  """
  tensors = trees.flatten(container.tree, '/')
  weights, aside = {}, {}
  for name, array in tensors.items():
    if VARIABLE.fullmatch(name):
      weights[name] = array
    else:
      last = name.rpartition('/')[2]
      aside[last] = aside.get(last, 0) + 1
  return Contents({'params': from_keras(weights)}, aside, trees.step_of(tensors, 'step'))


def from_keras(tensors: Mapping[str, Any]) -> dict[str, Any]:
  """Converts variables to arrays by the names of the port.

  The arrays may be traced: converting is linear, so that gradients pass through it.

  Raises:
    UserError: variables of no known layer, two of one name, or not those of a whole model.
  """
  layers: dict[tuple[str, int], dict[str, Any]] = {}
  for name, array in tensors.items():
    match = VARIABLE.fullmatch(name)
    if match is None:
      raise UserError(f'{name} is no variable of a Clockwork VAE; save its weights alone')
    kind, number, leaf = match.groups()
    leaves = layers.setdefault((kind, int(number or 0)), {})
    if leaf in leaves:
      raise UserError(f'{name} is the second {leaf} of its layer; save the variables of one model')
    leaves[leaf] = array
  levels = sum(kind == 'gru_cell' for kind, _ in layers)
  between = sum(kind == 'dense' for kind, _ in layers) - DENSE_IN_A_CELL * levels - 1
  if between < 0:
    raise UserError(
      f'{levels} GRU cells need at least {DENSE_IN_A_CELL * levels + 1} dense layers, found '
      f'{between + DENSE_IN_A_CELL * levels + 1}; give the variables of a whole model'
    )
  for (kind, number), leaves in layers.items():
    if missing := [leaf for leaf in LEAVES[kind] if leaf not in leaves]:
      raise UserError(
        f'{kind} number {number} has no {", ".join(missing)}; give the variables of a whole model'
      )
  arrays = {}
  for (kind, number), leaves in layers.items():
    arrays.update(_keras_layer(kind, number, leaves, levels, between))
  return arrays


def _keras_layer(
  kind: str, number: int, leaves: dict[str, Any], levels: int, between: int
) -> Iterator[tuple[str, Any]]:
  """Yields the arrays of a layer; `between` dense layers of the encoder lead between levels."""
  if kind == 'gru_cell':
    yield from _keras_gru(f'model/RSSMCell_{number}/RSSMPrior_0/GRUCell_0', leaves)
    return
  kernel = leaves['kernel']
  if kind == 'conv2d_transpose':  # [h, w, out, in], and flipped
    kernel = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
  names = {'conv2d': 'encoder/Conv_{}', 'conv2d_transpose': 'decoder/ConvTranspose_{}'}
  name = names[kind].format(number) if kind in names else _dense(number, levels, between)
  yield f'{name}/kernel', kernel
  yield f'{name}/bias', leaves['bias']


def _dense(number: int, levels: int, between: int) -> str:
  """Returns the name of a dense layer in the port."""
  if number < between:
    return f'encoder/Dense_{number}'
  cell, layer = divmod(number - between, DENSE_IN_A_CELL)
  if cell == levels:
    return 'decoder/Dense_0'
  side, layer = ('Prior', layer) if layer < 4 else ('Posterior', layer - 4)
  return f'model/RSSMCell_{levels - 1 - cell}/RSSM{side}_0/Dense_{layer}'


def _keras_gru(name: str, leaves: dict[str, Any]) -> Iterator[tuple[str, Any]]:
  size = leaves['recurrent_kernel'].shape[0]
  bias = leaves['bias']  # of the input, of the state
  if bias.shape != (2, 3 * size):
    raise UserError(
      f'the bias of a GRU cell has shape {list(bias.shape)}, expected {[2, 3 * size]}; '
      f'only cells with reset_after, as the official code has them, can be imported'
    )
  for i, gate in enumerate(KERAS_GATES):
    block = np.s_[..., i * size : (i + 1) * size]
    yield f'{name}/i{gate}/kernel', leaves['kernel'][block]
    yield f'{name}/h{gate}/kernel', leaves['recurrent_kernel'][block]
    of_input, of_state = bias[0][block], bias[1][block]
    yield f'{name}/i{gate}/bias', of_input if gate == 'n' else of_input + of_state
    if gate == 'n':
      yield f'{name}/hn/bias', of_state


JAX = Format(settings={'name': 'cwvae'}, contents=trees.flax_optimizer, rows=_rows, batch=_frame)
TENSORFLOW = Format(
  settings={'name': 'cwvae'}, contents=_tensorflow_contents, rows=_rows, batch=_frame
)
