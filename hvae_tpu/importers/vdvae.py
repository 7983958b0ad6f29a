"""Checkpoints of VDVAE: the original release, and its JAX port.

The release (openai/vdvae) stores PyTorch state dicts. Its models are `VDVAE` with default
likelihood, activation and initialisation; FFHQ-256 has `num_bits=5`.

The port (j-towns/vdvae-jax) stores Flax parameter trees. Its models have `gelu_approximate=True`,
`likelihood='dmol_exact'` and `kernel_init='lecun'`. In its `dec_blocks`, a plain item `R` mixes in
the map of resolution 1, so it is `Rm1` in ours; `RxN` means the same in both.
"""

from typing import NamedTuple

from hvae_tpu.importers import tables, trees
from hvae_tpu.importers.formats import Contents, Format
from hvae_tpu.importers.tables import Layout, Path, Row, Style
from hvae_tpu.models.vdvae import VDVAE
from hvae_tpu.storage.tensor_files import Container


class Names(NamedTuple):
  """Names of a format's parts, `{}` for a number counted from 0.

  Attributes:
    style: names and layout inside a convolution.
    in_conv, out_conv: first and last convolution.
    encoder_block, decoder_block: blocks in order of execution.
    convs: the four convolutions inside a block.
    start: learned map, numbered from the coarsest resolution.
    gain, bias: scale and shift of the last map.
    channels, map: layouts of gain and bias, and of learned maps.
  """

  style: Style
  in_conv: str
  out_conv: str
  encoder_block: str
  decoder_block: str
  convs: tuple[str, str, str, str]
  start: str
  gain: str
  bias: str
  channels: Layout
  map: Layout

  def block(self, path: Path, index: int, *parts: str) -> list[Row]:
    """Returns the rows of the four convolutions in a block."""
    rows = []
    for ours, theirs in zip(('c1', 'c2', 'c3', 'c4'), self.convs, strict=True):
      rows += self.style.layer((*path, ours), index, *parts, theirs)
    return rows


RELEASE = Names(
  style=tables.TORCH,
  in_conv='encoder.in_conv',
  out_conv='decoder.out_net.out_conv',
  encoder_block='encoder.enc_blocks.{}',
  decoder_block='decoder.dec_blocks.{}',
  convs=('c1', 'c2', 'c3', 'c4'),
  start='decoder.bias_xs.{}',
  gain='decoder.gain',
  bias='decoder.bias',
  channels=tables.CHANNELS,
  map=tables.MAP,
)
PORT = Names(
  style=tables.FLAX,
  in_conv='encoder/Conv_0',
  out_conv='decoder/out_net/out_conv',
  encoder_block='encoder/Block_{}',
  decoder_block='decoder/dec_blocks_{}',
  convs=('Conv_0', 'Conv_1', 'Conv_2', 'Conv_3'),
  start='decoder/bias_xs_{}',
  gain='decoder/gain',
  bias='decoder/bias',
  channels=tables.SAME,
  map=tables.SAME,
)


def _rows(model: VDVAE, names: Names) -> dict[str, list[Row]]:
  """Returns the table, in the order in which the release stores its arrays."""
  layer = names.style.layer
  rows = layer(('encoder', 'in_conv'), None, names.in_conv)
  for number, (run, index) in enumerate(_blocks(model.encoder_runs)):
    block = names.encoder_block.format(number)
    rows += names.block(('encoder', run, 'block'), index, block)
  rows.append(Row(('gain',), None, names.gain, names.channels))
  rows.append(Row(('bias',), None, names.bias, names.channels))
  for number, (run, index) in enumerate(_blocks(model.decoder_runs)):
    block, path = names.decoder_block.format(number), ('decoder', run)
    rows += names.block((*path, 'enc'), index, block, 'enc')
    rows += names.block((*path, 'prior'), index, block, 'prior')
    rows += layer((*path, 'z_proj'), index, block, 'z_proj')
    rows += names.block((*path, 'resnet'), index, block, 'resnet')
  resolutions = {run.res for run in model.decoder_runs if run.res <= model.no_bias_above}
  for rank, res in enumerate(sorted(resolutions)):
    rows.append(Row(('decoder', f'start_{res}'), None, names.start.format(rank), names.map))
  return {'params': rows + layer(('out_conv',), None, names.out_conv)}


def _blocks(runs) -> list[tuple[str, int]]:
  """Returns the name of the run and the position in it, for every block in execution order."""
  return [(run.name, index) for run in runs for index in range(run.count)]


def _release_contents(container: Container) -> Contents:
  """Reads a state dict, which derived programs wrap."""
  tree, aside = trees.unwrap(container.tree, ('model', 'state_dict', 'params'))
  return Contents({'params': trees.without_module(trees.flatten(tree, '.'))}, aside, {})


OPENAI = Format(
  settings={'name': 'vdvae', 'likelihood': 'dmol_torch', 'gelu_approximate': False},
  contents=_release_contents,
  rows=lambda model: _rows(model, RELEASE),
)
JAX = Format(
  settings={'name': 'vdvae', 'likelihood': 'dmol_exact', 'gelu_approximate': True},
  contents=trees.flax_optimizer,
  rows=lambda model: _rows(model, PORT),
)
