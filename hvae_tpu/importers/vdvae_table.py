"""The table of a VDVAE, for any reference that names its parts in the same order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hvae_tpu.importers import tables
from hvae_tpu.importers.tables import Entry, Layout, Path, Row
from hvae_tpu.models.protocol import Batch
from hvae_tpu.models.vdvae import VDVAE


class Names(NamedTuple):
  """What one format calls the parts; `{}` stands for a number counted from 0.

  Attributes:
    in_conv, out_conv: first and last convolution.
    encoder_block, decoder_block: in order of execution.
    convs: the four convolutions inside a block.
    start: learned map, numbered from the coarsest resolution.
    gain, bias: of the last map.
    kernel_leaf, bias_leaf: of a convolution.
    join: between the names of a part and of what is in it.
    kernel, channels, map: layout of convolution kernels, of gain and bias, and of learned maps.
  """

  in_conv: str
  out_conv: str
  encoder_block: str
  decoder_block: str
  convs: tuple[str, str, str, str]
  start: str
  gain: str
  bias: str
  kernel_leaf: str
  bias_leaf: str
  join: str
  kernel: Layout
  channels: Layout
  map: Layout

  def conv(self, path: Path, index: int | None, *parts: str) -> list[Row]:
    key = self.join.join(parts)
    return [
      Row((*path, 'kernel'), index, self.join.join((key, self.kernel_leaf)), self.kernel),
      Row((*path, 'bias'), index, self.join.join((key, self.bias_leaf)), tables.SAME),
    ]

  def convs_of_block(self, path: Path, index: int, *parts: str) -> list[Row]:
    rows = []
    for ours, theirs in zip(('c1', 'c2', 'c3', 'c4'), self.convs, strict=True):
      rows += self.conv((*path, ours), index, *parts, theirs)
    return rows


def example(model: VDVAE) -> Batch:
  """Shapes of a batch of one image."""
  size = model.image_size
  return {'image': jax.ShapeDtypeStruct((1, size, size, model.image_channels), jnp.uint8)}


def entries(model: VDVAE, names: Names) -> list[Entry]:
  """One entry per array, in the order in which the original release stores them."""
  rows = names.conv(('encoder', 'in_conv'), None, names.in_conv)
  for number, (run, index) in enumerate(_blocks(model.encoder_runs)):
    block = names.encoder_block.format(number)
    rows += names.convs_of_block(('encoder', run, 'block'), index, block)
  rows.append(Row(('gain',), None, names.gain, names.channels))
  rows.append(Row(('bias',), None, names.bias, names.channels))
  for number, (run, index) in enumerate(_blocks(model.decoder_runs)):
    block, path = names.decoder_block.format(number), ('decoder', run)
    rows += names.convs_of_block((*path, 'enc'), index, block, 'enc')
    rows += names.convs_of_block((*path, 'prior'), index, block, 'prior')
    rows += names.conv((*path, 'z_proj'), index, block, 'z_proj')
    rows += names.convs_of_block((*path, 'resnet'), index, block, 'resnet')
  resolutions = {run.res for run in model.decoder_runs if run.res <= model.no_bias_above}
  for rank, res in enumerate(sorted(resolutions)):
    rows.append(Row(('decoder', f'start_{res}'), None, names.start.format(rank), names.map))
  rows += names.conv(('out_conv',), None, names.out_conv)
  params, _ = jax.eval_shape(model.init, jax.random.key(0), example(model))
  return tables.complete(rows, params)


def _blocks(runs) -> list[tuple[str, int]]:
  """Name of the run and position in it, of every block in order of execution."""
  return [(run.name, index) for run in runs for index in range(run.count)]
