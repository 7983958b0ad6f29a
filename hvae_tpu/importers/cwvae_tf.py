"""Variables of the official TensorFlow code of the Clockwork VAE, by their names.

They come from its checkpoints, or from an .npz file.

Layers are told by the number that Keras gave them in the order of creation (encoder, levels from
the top, decoder), whatever their scopes are. A GRU there has two biases for each gate, of which
only the sums matter, but for the new state; so they come in merged, and its Adam slots are left.
"""

from collections.abc import Iterator, Mapping
import re
from typing import Any

import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.importers import cwvae_jax, trees
from hvae_tpu.importers.trees import Contents
from hvae_tpu.storage.tensor_files import Container

SETTINGS = {'name': 'cwvae'}
VARIABLE = re.compile(
  r'(?:.*/)?(conv2d_transpose|conv2d|dense|gru_cell)(?:_(\d+))?/(kernel|recurrent_kernel|bias)'
)
LEAVES = dict.fromkeys(('conv2d', 'conv2d_transpose', 'dense'), ('kernel', 'bias'))
LEAVES |= {'gru_cell': ('kernel', 'recurrent_kernel', 'bias')}
GATES = ('z', 'r', 'n')  # the order of the blocks of a kernel
OF_A_CELL = 8  # dense layers: four of the prior, four of the posterior

example = cwvae_jax.example
field_tables = cwvae_jax.field_tables


def contents(held: Container) -> Contents:
  """The weights, in the names and layouts of the port.

  The optimizer's variables are set aside: `Adam` and `Adam_1`, which end the names of its moments,
  and a few numbers.
  """
  tensors = trees.flatten(held.tree, '/')
  weights, aside = {}, {}
  for name, array in tensors.items():
    if VARIABLE.fullmatch(name):
      weights[name] = array
    else:
      last = name.rpartition('/')[2]
      aside[last] = aside.get(last, 0) + 1
  return Contents({'params': convert(weights)}, aside, trees.step_of(tensors, 'step'))


def convert(tensors: Mapping[str, Any]) -> dict[str, Any]:
  """Variables -> arrays by the names of the port.

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
  between = sum(kind == 'dense' for kind, _ in layers) - OF_A_CELL * levels - 1
  if between < 0:
    raise UserError(
      f'{levels} GRU cells need at least {OF_A_CELL * levels + 1} dense layers, found '
      f'{between + OF_A_CELL * levels + 1}; give the variables of a whole model'
    )
  for (kind, number), leaves in layers.items():
    if missing := [leaf for leaf in LEAVES[kind] if leaf not in leaves]:
      raise UserError(
        f'{kind} number {number} has no {", ".join(missing)}; give the variables of a whole model'
      )
  found = {}
  for (kind, number), leaves in layers.items():
    found.update(_layer(kind, number, leaves, levels, between))
  return found


def _layer(
  kind: str, number: int, leaves: dict[str, Any], levels: int, between: int
) -> Iterator[tuple[str, Any]]:
  """The arrays of one layer; `between` dense layers lead from level to level in the encoder."""
  if kind == 'gru_cell':
    yield from _gru(f'model/RSSMCell_{number}/RSSMPrior_0/GRUCell_0', leaves)
    return
  kernel = leaves['kernel']
  if kind == 'conv2d_transpose':  # [h, w, out, in], and flipped
    kernel = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
  names = {'conv2d': 'encoder/Conv_{}', 'conv2d_transpose': 'decoder/ConvTranspose_{}'}
  name = names[kind].format(number) if kind in names else _dense(number, levels, between)
  yield f'{name}/kernel', kernel
  yield f'{name}/bias', leaves['bias']


def _dense(number: int, levels: int, between: int) -> str:
  """What the port calls a dense layer."""
  if number < between:
    return f'encoder/Dense_{number}'
  cell, layer = divmod(number - between, OF_A_CELL)
  if cell == levels:
    return 'decoder/Dense_0'
  side, layer = ('Prior', layer) if layer < 4 else ('Posterior', layer - 4)
  return f'model/RSSMCell_{levels - 1 - cell}/RSSM{side}_0/Dense_{layer}'


def _gru(name: str, leaves: dict[str, Any]) -> Iterator[tuple[str, Any]]:
  size = leaves['recurrent_kernel'].shape[0]
  bias = leaves['bias']  # of the input, of the state
  if bias.shape != (2, len(GATES) * size):
    raise UserError(
      f'the bias of a GRU cell has shape {list(bias.shape)}, expected {[2, len(GATES) * size]}; '
      f'only cells with reset_after, as the official code has them, can be imported'
    )
  for i, gate in enumerate(GATES):
    block = np.s_[..., i * size : (i + 1) * size]
    yield f'{name}/i{gate}/kernel', leaves['kernel'][block]
    yield f'{name}/h{gate}/kernel', leaves['recurrent_kernel'][block]
    of_input, of_state = bias[0][block], bias[1][block]
    yield f'{name}/i{gate}/bias', of_input if gate == 'n' else of_input + of_state
    if gate == 'n':
      yield f'{name}/hn/bias', of_state
