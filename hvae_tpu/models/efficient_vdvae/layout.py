"""The lists that lay out an Efficient-VDVAE, and its runs of equal blocks.

A list has one number per level; bottom-up levels go from fine to coarse, top-down levels from
coarse to fine, and the two sides mirror each other. A list of one number holds for every level.
Reference: the sections `model.up_*` and `model.down_*` of Rayhane-mamah/Efficient-VDVAE.
"""

from collections.abc import Mapping
import math
from typing import NamedTuple

# Fields that are lists with an entry per level.
LISTS = (
  'up_n_blocks_per_res',
  'up_n_layers',
  'up_n_blocks',
  'up_filters',
  'up_mid_filters_ratio',
  'up_kernel_size',
  'down_n_blocks_per_res',
  'down_n_layers',
  'down_n_blocks',
  'down_filters',
  'down_mid_filters_ratio',
  'down_kernel_size',
)


class Cells(NamedTuple):
  """The residual cells of a block.

  Attributes:
    count: number of cells.
    width: channels of the block.
    ratio: bottleneck channels over input channels.
    kernel: size of the middle convolutions.
    layers: number of middle convolutions.
  """

  count: int
  width: int
  ratio: float
  kernel: int
  layers: int


class UpRun(NamedTuple):
  """Equal bottom-up blocks in a row, and the pooling behind the last one.

  Attributes:
    name: name of the module, e.g. `up_00_32x12`.
    count: number of blocks.
    cells: settings of the cells in each block.
    skip: channels that each block hands to the top-down side; 0: none.
    rate, pooled: stride and output channels of the pooling; a rate of 1 is no pooling.
    pool: name of its module.
  """

  name: str
  count: int
  cells: Cells
  skip: int
  rate: int
  pooled: int
  pool: str


class DownRun(NamedTuple):
  """Equal top-down blocks in a row, and the upsampling before the first one.

  Attributes:
    name: name of the module, e.g. `down_01_4x4`.
    res: side of the maps.
    count: number of blocks.
    cells: settings of the cells in each block.
    rate: factor of the upsampling; 1 is none.
    unpool: name of its module.
    levels: which skip each block receives, counted from the coarsest.
  """

  name: str
  res: int
  count: int
  cells: Cells
  rate: int
  unpool: str
  levels: tuple[int, ...]


def at_every_level(values: tuple, levels: int) -> tuple:
  """Returns one entry per level."""
  return values * levels if len(values) == 1 else values


def _cells(lists: Mapping[str, tuple], side: str, level: int, width: int) -> Cells:
  get = lambda name: lists[f'{side}_{name}'][level]
  return Cells(
    get('n_blocks'), width, get('mid_filters_ratio'), get('kernel_size'), get('n_layers')
  )


def down_runs(strides: tuple[int, ...], lists: Mapping[str, tuple], side: int) -> list[DownRun]:
  """Returns the top-down runs.

  Args:
    strides: strides of the top-down levels.
    lists: by field name, each with one entry per level.
    side: side of the coarsest map, before the first stride.
  """
  runs, width = [], lists['down_filters'][0]
  for level, rate in enumerate(strides):
    side *= rate
    width = lists['down_filters'][level] if rate > 1 else width
    cells = _cells(lists, 'down', level, width)
    levels = (level,) * (1 + lists['down_n_blocks_per_res'][level])
    if runs and rate == 1 and runs[-1].cells == cells:
      runs[-1] = runs[-1]._replace(levels=runs[-1].levels + levels)
    else:
      runs.append(DownRun('', side, 0, cells, rate, '', levels))
  return [
    run._replace(
      name=f'down_{i:02d}_{run.res}x{len(run.levels)}',
      count=len(run.levels),
      unpool=f'unpool_{i:02d}',
    )
    for i, run in enumerate(runs)
  ]


def up_runs(
  strides: tuple[int, ...],
  lists: Mapping[str, tuple],
  skips: tuple[int, ...],
  width: int,
  side: int,
) -> list[UpRun]:
  """Returns the bottom-up runs.

  Args:
    strides: strides of the bottom-up levels.
    lists: by field name, each with one entry per level.
    skips: channels of the skip of each level.
    width: channels of the first map.
    side: side of the image.
  """
  runs, sides = [], []
  for level, rate in enumerate(strides):
    cells = _cells(lists, 'up', level, width)
    for count, skip in ((lists['up_n_blocks_per_res'][level], 0), (1, skips[level])):
      same = runs and (runs[-1].cells, runs[-1].skip, runs[-1].rate) == (cells, skip, 1)
      if same:
        runs[-1] = runs[-1]._replace(count=runs[-1].count + count)
      elif count:
        runs.append(UpRun('', count, cells, skip, 1, width, ''))
        sides.append(side)
    if rate > 1:
      width = lists['up_filters'][level]
      runs[-1] = runs[-1]._replace(rate=rate, pooled=width)
      side //= rate
  return [
    run._replace(name=f'up_{i:02d}_{side}x{run.count}', pool=f'pool_{i:02d}')
    for i, (run, side) in enumerate(zip(runs, sides, strict=True))
  ]


def skip_widths(strides: tuple[int, ...], down_filters: tuple[int, ...]) -> tuple[int, ...]:
  """Returns the channels of every bottom-up level's skip: the width of its top-down level."""
  width, widths = down_filters[0], []
  for rate, filters in zip(strides, down_filters, strict=True):
    width = filters if rate > 1 else width
    widths.append(width)
  return tuple(reversed(widths))


def problems(
  strides: tuple[int, ...], lists: Mapping[str, tuple], image_size: int, input_width: int
) -> list[str]:
  """Returns a sentence for each contradiction in a layout, by config field.

  Args:
    strides: `down_strides`.
    lists: by field name, as given.
    image_size: side of the image.
    input_width: `input_conv_filters`.
  """
  levels = len(strides)
  errors = [
    f'model.{name} has {len(values)} entries; it must have 1, or {levels}, one per entry of '
    f'model.down_strides'
    for name, values in lists.items()
    if not values or len(values) not in (1, levels)
  ]
  if not strides:
    errors = ['model.down_strides has no entry']
  if errors:
    return errors
  if image_size % math.prod(strides):
    errors.append(
      f'model.image_size={image_size} must divide by {math.prod(strides)}, the product of '
      f'model.down_strides'
    )
  lists = {name: at_every_level(values, levels) for name, values in lists.items()}
  errors += _width_problems('down_filters', strides, lists['down_filters'], None)
  up_strides = tuple(reversed(strides))
  errors += _width_problems('up_filters', up_strides, lists['up_filters'], input_width)
  return errors


def _width_problems(
  name: str, strides: tuple[int, ...], filters: tuple[int, ...], width: int | None
) -> list[str]:
  """Refuses another width at a level that does not resample."""
  width = filters[0] if width is None else width
  for level, (rate, next_width) in enumerate(zip(strides, filters, strict=True)):
    if rate == 1 and next_width != width:
      return [
        f'model.{name}: level {level} does not resample, so it cannot change {width} channels to '
        f'{next_width}'
      ]
    width = next_width
  return []
