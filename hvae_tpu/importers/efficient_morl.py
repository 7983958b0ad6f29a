"""Checkpoints of EfficientMORL and its Slot Attention baseline (`torch.save`, `*-state-*.pth`).

The config's model says which of the two a file holds. The multiplier of GECO is a weight in the
reference, and state in our model.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.importers import tables, trees
from hvae_tpu.importers.formats import Contents, Format, Meta
from hvae_tpu.importers.tables import Layout, Path, Row
from hvae_tpu.models.efficient_morl import EfficientMORL
from hvae_tpu.models.efficient_morl.slot_attention import SlotAttention
from hvae_tpu.models.protocol import Batch
from hvae_tpu.storage.tensor_files import Container

STATE = ('geco_C_ema', 'geco_beta')
# Kernel of a transposed convolution [in, out, h, w] <-> [h, w, in, out], turned by 180 degrees.
TRANSPOSED = Layout(
  lambda a: a.transpose(2, 3, 0, 1)[::-1, ::-1],
  lambda a: a[::-1, ::-1].transpose(2, 3, 0, 1),
)
CONSTANTS = ('generation_relation', 'gru.cell.zeros')  # of old files; no weights
# Beginnings of names in older files -> now.
OLD = {
  'pos_embed_projection': 'hvae_networks.pos_embed_projection',
  'encoder_pt': 'hvae_networks.encoder_pt',
  'object_discovery_block': 'hvae_networks',
}


def rename(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the arrays by today's names, without constants.

  Raises:
    UserError: two names become one.
  """
  bare = trees.without_module(tensors)
  # The baseline has the names without the network's, and so had old files.
  is_old = any(key.startswith('object_discovery_block') for key in bare)
  renamed = {}
  for key, tensor in bare.items():
    for old, new in OLD.items() if is_old else ():
      if key.startswith(old):
        key = new + key.removeprefix(old)
        break
    if any(part in key for part in CONSTANTS):
      continue
    if key in renamed:
      raise UserError(f'{key} occurs under an old and a new name; save one state dict')
    renamed[key] = tensor
  return renamed


def _contents(container: Container) -> Contents:
  """Reads a state dict, and splits it into weights and state."""
  tree, aside = trees.unwrap(container.tree, ('model', 'state_dict'))
  tensors = rename(trees.flatten(tree, '.'))
  fields = {'params': {key: tensor for key, tensor in tensors.items() if key not in STATE}}
  if state := {key: tensors[key] for key in STATE if key in tensors}:
    fields['model_state'] = state
  return Contents(fields, aside, trees.step_of(container.tree, 'step'))


def _scene(model: EfficientMORL | SlotAttention, meta: Meta) -> Batch:
  """Returns the shapes of a batch of one scene."""
  shape = (1, model.image_size, model.image_size)
  channels = {'image': model.image_channels, 'segmentation': 1}
  return {name: jax.ShapeDtypeStruct((*shape, n), jnp.uint8) for name, n in channels.items()}


def _rows(model: EfficientMORL | SlotAttention) -> dict[str, list[Row]]:
  if isinstance(model, SlotAttention):
    return {'params': _baseline(model)}
  names = dict(zip(('c_ema', 'beta'), STATE, strict=True))
  state = [Row(('geco', ours), None, key, tables.SAME) for ours, key in names.items()]
  return {'params': _efficient(model), 'model_state': state}


def _efficient(model: EfficientMORL) -> list[Row]:
  nets, path = 'hvae_networks', ('bottom_up',)
  layer = (*path, 'layer')
  rows = [Row((*path, 'init_posterior'), None, f'{nets}.init_posterior', tables.BATCHED)]
  rows += _encoder(path, f'{nets}.') + _attention(path, layer, f'{nets}.')
  rows += _dual(layer, nets) if model.use_dual_gru else _single(layer, nets)
  for name in ('mu', 'softplus'):
    rows += _norm((*layer, f'norm_{name}_pre_ff'), f'{nets}.norm_{name}_pre_ff')
    rows += _mlp(layer, f'mlp_{name}', f'{nets}.mlp_{name}')
  rows += _decoder(model, f'{nets}.image_decoder')
  names = {'z_linear': 'z_linear.0', 'z_mu': 'z_mu', 'z_softplus': 'z_softplus'}
  for ours, theirs in names.items():
    rows += _linear(('prior', ours), f'{nets}.indep_prior.{theirs}')
  rows += _gru(('refinement', 'recurrence'), 'refinenet.recurrence')
  rows += _mlp(('refinement',), 'encoding', 'refinenet.encoding')
  for name in ('loc', 'softplus'):
    rows += _linear(('refinement', name), f'refinenet.{name}')
  return rows


def _baseline(model: SlotAttention) -> list[Row]:
  path, inner = ('slots',), ('slots', 'iteration')
  rows = [Row((*path, 'init_slots'), None, 'init_slots', tables.BATCHED)]
  rows += _encoder(path, '') + _attention(path, inner, '')
  rows += _norm((*inner, 'norm_pre_ff'), 'norm_pre_ff') + _mlp(inner, 'mlp', 'mlp')
  return rows + _gru((*inner, 'gru'), 'gru') + _decoder(model, 'image_decoder')


def _encoder(path: Path, prefix: str) -> list[Row]:
  path = (*path, 'encoder')
  rows = _linear((*path, 'positions'), f'{prefix}pos_embed_projection')
  for i in range(4):
    rows += _conv((*path, f'conv_{i}'), f'{prefix}encoder_pt_1.{2 * i}', tables.CONV)
  rows += _norm((*path, 'norm'), f'{prefix}encoder_pt_2.0')
  for i, index in enumerate((1, 3)):
    rows += _linear((*path, f'mlp_{i}'), f'{prefix}encoder_pt_2.{index}')
  return rows


def _attention(path: Path, layer: Path, prefix: str) -> list[Row]:
  homes = {'to_k': (*path, 'memory'), 'to_v': (*path, 'memory'), 'to_q': (*layer, 'attention')}
  rows = _norm((*layer, 'attention', 'norm_slots'), f'{prefix}norm_slots')
  return rows + [
    Row((*home, name, 'kernel'), None, f'{prefix}{name}.weight', tables.MATRIX)
    for name, home in homes.items()
  ]


def _decoder(model: EfficientMORL | SlotAttention, key: str) -> list[Row]:
  kind = model.image_decoder
  path, count = ('decoder', kind), {'small': 4, 'iodine': 5, 'big': 6}[kind]
  layout = TRANSPOSED if kind == 'big' else tables.CONV
  first = path if kind == 'big' else (*path, 'first')
  rows = _linear((*first, 'positions'), f'{key}.pos_embed_projection')
  for i in range(count):
    home = first if i == 0 and kind != 'big' else (*path, f'conv_{i}')
    rows += _conv(home, f'{key}.decode.{2 * i}', layout)
  return rows


def _dual(layer: Path, nets: str) -> list[Row]:
  cell = f'{nets}.gru.cell'
  kernels = [f'{name}_{half}' for half in (1, 2) for name in ('ih', 'hh', 'in', 'hn')]
  rows = [Row((*layer, 'gru', k), None, f'{cell}.weight_{k}', tables.MATRIX) for k in kernels]
  biases = [f'bias_{name}' for name in ('ih', 'hh', 'in', 'hn')]
  return rows + [Row((*layer, 'gru', b), None, f'{cell}.{b}', tables.SAME) for b in biases]


def _single(layer: Path, nets: str) -> list[Row]:
  rows = _linear((*layer, 'project_update'), f'{nets}.project_update')
  return rows + _gru((*layer, 'gru'), f'{nets}.gru')


def _gru(path: Path, key: str) -> list[Row]:
  rows = []
  for ours, theirs in (('input', 'ih'), ('state', 'hh')):
    rows.append(Row((*path, ours, 'kernel'), None, f'{key}.weight_{theirs}_l0', tables.MATRIX))
    rows.append(Row((*path, ours, 'bias'), None, f'{key}.bias_{theirs}_l0', tables.SAME))
  return rows


def _mlp(path: Path, name: str, key: str) -> list[Row]:
  """Returns the rows of two layers with an activation between them."""
  return [row for i in (0, 1) for row in _linear((*path, f'{name}_{i}'), f'{key}.{2 * i}')]


def _linear(path: Path, key: str) -> list[Row]:
  return _conv(path, key, tables.MATRIX)


def _conv(path: Path, key: str, layout: Layout) -> list[Row]:
  return tables.TORCH.layer(path, None, key, layout=layout)


def _norm(path: Path, key: str) -> list[Row]:
  return [
    Row((*path, 'scale'), None, f'{key}.weight', tables.SAME),
    Row((*path, 'bias'), None, f'{key}.bias', tables.SAME),
  ]


# The two models have no field in common; the names of their arrays tell them apart.
PYTORCH = Format(settings={}, contents=_contents, rows=_rows, batch=_scene)
