"""The table of an Efficient-VDVAE, for the two forms of its reference."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hvae_tpu.importers import tables
from hvae_tpu.importers.tables import Entry, Layout, Path, Row
from hvae_tpu.models.efficient_vdvae import EfficientVDVAE
from hvae_tpu.models.protocol import Batch


class Names(NamedTuple):
  """What one format calls the parts; `{}` stands for a number counted from 0.

  Attributes:
    input_conv, output_conv: first and last convolution.
    up, pooled: a bottom-up block without a skip (level, number), and the one with it (level).
    down, unpooled: a top-down block that repeats (level, number), and the first one (level).
    convs: a convolution of a cell by its number.
    residual_block, prior_net, posterior_net: cells inside a block.
    skip_projection, prior_projection, posterior_projection, z_projection: inside a block.
    pool, unpool, scale_bias: inside a block.
    start: learned map.
    kernel_leaf: of a convolution.
    join: between the names of a part and of what is in it.
    kernel, map: layout of convolution kernels, and of learned maps.
  """

  input_conv: str
  output_conv: str
  up: str
  pooled: str
  down: str
  unpooled: str
  convs: Callable[[int], str]
  residual_block: str
  prior_net: str
  posterior_net: str
  skip_projection: str
  prior_projection: str
  posterior_projection: str
  z_projection: str
  pool: str
  unpool: str
  scale_bias: str
  start: str
  kernel_leaf: str
  join: str
  kernel: Layout
  map: Layout

  def conv(self, path: Path, index: int | None, *parts: str) -> list[Row]:
    key = self.join.join(parts)
    return [
      Row((*path, 'kernel'), index, self.join.join((key, self.kernel_leaf)), self.kernel),
      Row((*path, 'bias'), index, self.join.join((key, 'bias')), tables.SAME),
    ]

  def cell(self, path: Path, index: int, layers: int, *parts: str) -> list[Row]:
    rows = []
    for k in range(layers + 2):
      rows += self.conv((*path, f'conv_{k}'), index, *parts, self.convs(k))
    return rows


def channels_by_colour(num_mixtures: int) -> np.ndarray:
  """Where each of our output channels stands in the reference's JAX form, int [10 K].

  Behind the K logits, ours are ordered by colour, then kind, then k; theirs by kind, then k, then
  colour.
  """
  rest = num_mixtures + np.arange(9 * num_mixtures).reshape(3, num_mixtures, 3)
  return np.concatenate([np.arange(num_mixtures), rest.transpose(2, 0, 1).reshape(-1)])


def reordered(layout: Layout, order: np.ndarray) -> Layout:
  """`layout`, with our last axis being the source's entries `order`."""
  back = np.argsort(order)
  return Layout(lambda a: layout.to_ours(a)[..., order], lambda a: layout.to_source(a[..., back]))


def example(model: EfficientVDVAE) -> Batch:
  """Shapes of a batch of one image."""
  size = model.image_size
  return {'image': jax.ShapeDtypeStruct((1, size, size, model.image_channels), jnp.uint8)}


def entries(model: EfficientVDVAE, names: Names, output: Callable[[Layout], Layout]) -> list[Entry]:
  """One entry per array, in order of execution.

  Args:
    model: whose parameters they are.
    names: of the format.
    output: from the layout of an array to that of the output convolution, which may have its
      channels in another order.
  """
  rows = names.conv(('bottom_up', 'input_conv'), None, names.input_conv)
  rows += _up_rows(model, names) + _down_rows(model, names)
  rows.append(Row(('top_down', 'trainable_h'), None, names.start, names.map))
  last = names.conv(('top_down', 'output_conv'), None, names.output_conv)
  rows += [row._replace(layout=output(row.layout)) for row in last]
  params, _ = jax.eval_shape(model.init, jax.random.key(0), example(model))
  return tables.complete(rows, params)


def _up_rows(model: EfficientVDVAE, names: Names) -> list[Row]:
  rows, blocks = [], _up_blocks(model, names)
  for run in model.up_runs:
    path = ('bottom_up', run.name)
    for index in range(run.count):
      block = next(blocks)
      rows += _cells(names, path, index, run.cells, block)
      if run.skip:
        part = names.skip_projection
        rows += names.conv((*path, 'skip_projection'), index, block, part)
    if run.rate > 1:
      rows += names.conv(('bottom_up', run.pool, 'conv'), None, block, names.pool)
  return rows


def _down_rows(model: EfficientVDVAE, names: Names) -> list[Row]:
  rows, blocks = [], _down_blocks(model, names)
  for run in model.down_runs:
    path = ('top_down', run.name)
    for index in range(run.count):
      block = next(blocks)
      if index == 0 and run.rate > 1:
        unpool = ('top_down', run.unpool)
        rows += names.conv((*unpool, 'conv'), None, block, names.unpool)
        key = names.join.join((block, names.scale_bias))
        rows.append(Row((*unpool, 'scale_bias'), None, key, names.map))
      for net in ('prior_net', 'posterior_net'):
        rows += names.cell((*path, net), index, run.cells.layers, block, getattr(names, net))
      for part in ('prior_projection', 'posterior_projection', 'z_projection'):
        rows += names.conv((*path, part), index, block, getattr(names, part))
      rows += _cells(names, path, index, run.cells, block)
  return rows


def _cells(names: Names, path: Path, index: int, cells, block: str) -> list[Row]:
  rows = []
  for r in range(cells.count):
    theirs = names.residual_block.format(r)
    rows += names.cell((*path, f'residual_block_{r}'), index, cells.layers, block, theirs)
  return rows


def _up_blocks(model: EfficientVDVAE, names: Names) -> Iterator[str]:
  """The reference's names of the bottom-up blocks, in order of execution."""
  for level, repeats in enumerate(model.at_every_level('up_n_blocks_per_res')):
    for j in range(repeats):
      yield names.up.format(level, j)
    yield names.pooled.format(level)


def _down_blocks(model: EfficientVDVAE, names: Names) -> Iterator[str]:
  """The same of the top-down blocks."""
  for level, repeats in enumerate(model.at_every_level('down_n_blocks_per_res')):
    yield names.unpooled.format(level)
    for j in range(repeats):
      yield names.down.format(level, j)
