"""Checkpoints of Efficient-VDVAE: its JAX form and its PyTorch form.

The JAX form stores Flax msgpack of the train state: `params`, `ema_params`, optimizer and step.
The PyTorch form stores state dicts by `torch.save`. Its published files have no extension; such a
file is a zip archive itself, which must not be unpacked.

The `model` section must be that of the run's own `hparams-*.cfg`: efficient_vdvae_cfg.py.
"""

from collections.abc import Callable, Iterator
import functools
from typing import NamedTuple

import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.importers import tables, trees
from hvae_tpu.importers.formats import Contents, Format
from hvae_tpu.importers.tables import Layout, Path, Row, Style
from hvae_tpu.models.efficient_vdvae import EfficientVDVAE
from hvae_tpu.storage.tensor_files import Container


class Names(NamedTuple):
  """Names of a format's parts, `{}` for a number counted from 0.

  Attributes:
    style: names and layout inside a convolution.
    input_conv, output_conv: first and last convolution.
    up, pooled: a bottom-up block without a skip (level, number), and the one with it (level).
    down, unpooled: a top-down block that repeats (level, number), and the first one (level).
    convs: a convolution of a cell by its number.
    residual_block, prior_net, posterior_net: cells inside a block.
    skip_projection, prior_projection, posterior_projection, z_projection: layers inside a block.
    pool, unpool, scale_bias: layers that change the resolution.
    start: learned map.
    map: layout of learned maps.
  """

  style: Style
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
  map: Layout

  def cell(self, path: Path, index: int, layers: int, *parts: str) -> list[Row]:
    """Returns the rows of a residual cell; it has two convolutions beside its layers."""
    rows = []
    for k in range(layers + 2):
      rows += self.style.layer((*path, f'conv_{k}'), index, *parts, self.convs(k))
    return rows


FLAX = Names(
  style=tables.FLAX,
  input_conv='bottom_up/input_conv/conv',
  output_conv='top_down/output_conv/conv',
  up='bottom_up/block_up_level_{}_{}',
  pooled='bottom_up/block_up_level_{}_downsample',
  down='top_down/block_down_level_{}_{}',
  unpooled='top_down/block_down_level_{}_upsample',
  convs='conv_{}/conv'.format,
  residual_block='residual_block_{}',
  prior_net='prior_net',
  posterior_net='posterior_net',
  skip_projection='skip_projection/conv',
  prior_projection='prior_gaussian_layer/projection/conv',
  posterior_projection='posterior_gaussian_layer/projection/conv',
  z_projection='z_projection/z_projection/conv',
  pool='pooling_layer/conv/conv',
  unpool='unpooling_layer/conv/conv',
  scale_bias='unpooling_layer/scale_bias',
  start='top_down/trainable_h',
  map=tables.BATCHED,
)
TORCH = Names(
  style=tables.TORCH,
  input_conv='bottom_up.input_conv',
  output_conv='top_down.output_conv',
  up='bottom_up.levels_up.{}.{}',
  pooled='bottom_up.levels_up_downsample.{}',
  down='top_down.levels_down.{}.{}',
  unpooled='top_down.levels_down_upsample.{}',
  convs=lambda k: f'convs.{2 * k + 1}',  # activations stand between them
  residual_block='residual_block.{}',
  prior_net='prior_net.0',
  posterior_net='posterior_net.0',
  skip_projection='skip_projection',
  prior_projection='prior_layer.projection',
  posterior_projection='posterior_layer.projection',
  z_projection='z_projection',
  pool='pool.ops.0',
  unpool='unpool.ops.0',
  scale_bias='unpool.scale_bias',
  start='top_down.trainable_h',
  map=tables.MAP,
)


def channels_by_colour(num_mixtures: int) -> np.ndarray:
  """Returns the place of each of our output channels in the reference's JAX form, int [10 K].

  Behind the K logits, ours are ordered by colour, then kind, then k; theirs by kind, then k, then
  colour.
  """
  rest = num_mixtures + np.arange(9 * num_mixtures).reshape(3, num_mixtures, 3)
  return np.concatenate([np.arange(num_mixtures), rest.transpose(2, 0, 1).reshape(-1)])


def _reordered(layout: Layout, order: np.ndarray) -> Layout:
  """Returns `layout`, with our last axis being the source's entries `order`."""
  back = np.argsort(order)
  return Layout(lambda a: layout.to_ours(a)[..., order], lambda a: layout.to_source(a[..., back]))


def _rows(
  model: EfficientVDVAE, names: Names, output: Callable[[Layout], Layout] = lambda layout: layout
) -> dict[str, list[Row]]:
  """Returns the table, in order of execution.

  Args:
    model: the model with the parameters.
    names: names of the format.
    output: from the layout of an array to that of the output convolution, which may have its
      channels in another order.
  """
  layer = names.style.layer
  rows = layer(('bottom_up', 'input_conv'), None, names.input_conv)
  rows += _up_rows(model, names) + _down_rows(model, names)
  rows.append(Row(('top_down', 'trainable_h'), None, names.start, names.map))
  last = layer(('top_down', 'output_conv'), None, names.output_conv)
  return {'params': rows + [row._replace(layout=output(row.layout)) for row in last]}


def _up_rows(model: EfficientVDVAE, names: Names) -> list[Row]:
  rows, blocks = [], _up_blocks(model, names)
  for run in model.up_runs:
    path = ('bottom_up', run.name)
    for index in range(run.count):
      block = next(blocks)
      rows += _cells(names, path, index, run.cells, block)
      if run.skip:
        skip = (*path, 'skip_projection')
        rows += names.style.layer(skip, index, block, names.skip_projection)
    if run.rate > 1:
      rows += names.style.layer(('bottom_up', run.pool, 'conv'), None, block, names.pool)
  return rows


def _down_rows(model: EfficientVDVAE, names: Names) -> list[Row]:
  rows, blocks = [], _down_blocks(model, names)
  for run in model.down_runs:
    path = ('top_down', run.name)
    for index in range(run.count):
      block = next(blocks)
      if index == 0 and run.rate > 1:
        unpool = ('top_down', run.unpool)
        rows += names.style.layer((*unpool, 'conv'), None, block, names.unpool)
        key = names.style.join.join((block, names.scale_bias))
        rows.append(Row((*unpool, 'scale_bias'), None, key, names.map))
      for net in ('prior_net', 'posterior_net'):
        rows += names.cell((*path, net), index, run.cells.layers, block, getattr(names, net))
      for part in ('prior_projection', 'posterior_projection', 'z_projection'):
        rows += names.style.layer((*path, part), index, block, getattr(names, part))
      rows += _cells(names, path, index, run.cells, block)
  return rows


def _cells(names: Names, path: Path, index: int, cells, block: str) -> list[Row]:
  rows = []
  for r in range(cells.count):
    theirs = names.residual_block.format(r)
    rows += names.cell((*path, f'residual_block_{r}'), index, cells.layers, block, theirs)
  return rows


def _up_blocks(model: EfficientVDVAE, names: Names) -> Iterator[str]:
  """Yields the reference's names of the bottom-up blocks, in order of execution."""
  for level, repeats in enumerate(model.at_every_level('up_n_blocks_per_res')):
    for j in range(repeats):
      yield names.up.format(level, j)
    yield names.pooled.format(level)


def _down_blocks(model: EfficientVDVAE, names: Names) -> Iterator[str]:
  """Yields the reference's names of the top-down blocks, in order of execution."""
  for level, repeats in enumerate(model.at_every_level('down_n_blocks_per_res')):
    yield names.unpooled.format(level)
    for j in range(repeats):
      yield names.down.format(level, j)


def _flax_rows(model: EfficientVDVAE) -> dict[str, list[Row]]:
  if model.likelihood == 'bernoulli':
    return _rows(model, FLAX)
  order = channels_by_colour(model.num_mixtures)
  return _rows(model, FLAX, functools.partial(_reordered, order=order))


def _contents(container: Container, params: str, average: str, join: str, step: str) -> Contents:
  """Reads the parameters and their average; a file of bare parameters will do.

  Args:
    container: the file.
    params: key of the parameters.
    average: key of their moving average.
    join: separator in the names of the table.
    step: key of the number of updates.
  """
  tree, fields = container.tree, {}
  if isinstance(tree, dict) and isinstance(tree.get(average), dict):
    if params not in tree:
      raise UserError(f'it has {average} but no {params}; use the whole published file')
    fields['ema_params'] = trees.flatten(tree[average], join)
    tree = {key: value for key, value in tree.items() if key != average}
  tree, aside = trees.unwrap(tree, (params,))
  fields = {'params': trees.flatten(tree, join), **fields}
  return Contents(fields, aside, trees.step_of(container.tree, step))


JAX = Format(
  settings={'name': 'efficient_vdvae'},
  contents=lambda container: _contents(container, 'params', 'ema_params', '/', 'step'),
  rows=_flax_rows,
)
PYTORCH = Format(  # output channels are ordered as ours
  settings={'name': 'efficient_vdvae'},
  contents=lambda container: _contents(
    container, 'model_state_dict', 'ema_model_state_dict', '.', 'global_step'
  ),
  rows=lambda model: _rows(model, TORCH),
)
