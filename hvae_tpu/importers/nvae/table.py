"""The name table of an NVAE, for both reference implementations.

Groups are numbered from the top (coarsest) one on, scales from the finest latent one on.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from hvae_tpu.importers import tables
from hvae_tpu.importers.tables import Layout, Path, Row
from hvae_tpu.models.nvae import NVAE, cells, flows

STATISTICS = {'mean': 'running_mean', 'var': 'running_var'}
# A number for each output channel [C, 1, 1, 1] <-> [C].
GAIN = Layout(lambda a: a.reshape(-1), lambda a: a.reshape(-1, 1, 1, 1))
# A learned map [C, h, w] <-> [h, w, C].
SINGLE_MAP = Layout(lambda a: a.transpose(1, 2, 0), lambda a: a.transpose(2, 0, 1))


class Place(NamedTuple):
  """One module: its path in our tree, its index in a scanned run, and its name in the format."""

  path: Path
  index: int | None
  key: str

  def inner(self, name: str, key: str) -> 'Place':
    """Returns our module `name` inside this one; `key` is appended to the format's name."""
    return Place((*self.path, name), self.index, self.key + key)


class Names(NamedTuple):
  """Names of a format's parts.

  Attributes:
    prior, stem, enc_top, image: parts that a network has once.
    stem_decoder: combiner of a hierarchy of one group.
    pre, post: (block, number) -> cell.
    enc_cell: (scale, group of the scale, number) -> bottom-up cell.
    down: scale -> the cell that leads to it.
    up: group -> the cell before it that doubles the side.
    dec_cell: (group, number) -> top-down cell.
    enc_combiner, dec_combiner, enc_sampler, dec_sampler: group -> convolution.
    flow: (group, pair, whether mirrored) -> flow cell.
    flow_convs: names of the convolutions in a flow cell: ours -> the format's.
    cell: (names, place, operations, stride) -> rows of a cell.
    gain: leaf of the weight normalisation: ours and the format's.
    kernel: the format's leaf of a normalised kernel.
    prior_layout: layout of the learned map.
  """

  prior: str
  stem: str
  enc_top: str
  image: str
  stem_decoder: str
  pre: Callable[[int, int], str]
  post: Callable[[int, int], str]
  enc_cell: Callable[[int, int, int], str]
  down: Callable[[int], str]
  up: Callable[[int], str]
  dec_cell: Callable[[int, int], str]
  enc_combiner: Callable[[int], str]
  dec_combiner: Callable[[int], str]
  enc_sampler: Callable[[int], str]
  dec_sampler: Callable[[int], str]
  flow: Callable[[int, int, bool], str]
  flow_convs: dict[str, str]
  cell: Callable[[Any, Place, tuple[str, ...], int], list[Row]]
  gain: tuple[str, str]
  kernel: str
  prior_layout: Layout

  def conv(self, place: Place, norm: bool = True, bias: bool = True) -> list[Row]:
    """Returns the rows of a convolution, with or without weight normalisation and bias."""
    path, index, key = place
    kernel = self.kernel if norm else 'weight'
    rows = [Row((*path, 'kernel'), index, f'{key}.{kernel}', tables.CONV)]
    if norm:
      rows.append(Row((*path, self.gain[0]), index, f'{key}.{self.gain[1]}', GAIN))
    if bias:
      rows.append(Row((*path, 'bias'), index, f'{key}.bias', tables.SAME))
    return rows


def norm(place: Place) -> list[Row]:
  """Returns the rows of a batch normalisation: parameters and running statistics."""
  path, index, key = place
  leaves = {'scale': 'weight', 'bias': 'bias', **STATISTICS}
  return [
    Row((*path, ours), index, f'{key}.{theirs}', tables.SAME) for ours, theirs in leaves.items()
  ]


def squeeze_excite(place: Place, first: str, second: str) -> list[Row]:
  """Returns the rows of squeeze-and-excitation; `first` and `second` are the format's layers."""
  rows = []
  for name, key in (('squeeze', first), ('excite', second)):
    path, index, full = place.inner(name, key)
    rows += tables.TORCH.layer(path, index, full, layout=tables.MATRIX)
  return rows


def rows_of(model: NVAE, names: Names) -> dict[str, list[Row]]:
  """Returns the rows of parameters and of running statistics, in order of execution."""
  rows = [
    row
    for kind, place, detail in modules(model, names)
    for row in _module_rows(names, model, kind, place, detail)
  ]
  rows.append(Row(('top_down', 'prior_ftr0'), None, names.prior, names.prior_layout))
  is_statistic = lambda row: row.key.rpartition('.')[2] in STATISTICS.values()
  return {
    'params': [row for row in rows if not is_statistic(row)],
    'model_state': [
      row._replace(path=('batch_stats', *row.path)) for row in rows if is_statistic(row)
    ],
  }


def _module_rows(names: Names, model: NVAE, kind: str, place: Place, detail: Any) -> list[Row]:
  if kind == 'cell':
    return names.cell(names, place, *detail)
  if kind == 'flow':
    weights = model.flow_weight_norm
    return [
      row
      for name, key in names.flow_convs.items()
      for row in names.conv(place.inner(name, key), weights, bias=model.flow_bias or name == 'mean')
    ]
  return names.conv(place)


Module = tuple[str, Place, Any]


def modules(model: NVAE, names: Names) -> Iterator[Module]:
  """Yields (kind, place, detail) of all modules; the detail of a cell is (operations, stride)."""
  arch = cells.ARCHITECTURES[model.arch_instance]
  up, down = ('bottom_up',), ('top_down',)
  yield 'conv', Place((*up, 'stem'), None, names.stem), None
  for b in range(model.num_process_blocks):
    for i in range(model.num_preprocess_cells):
      stride = 2 if i == model.num_preprocess_cells - 1 else 1
      yield 'cell', Place((*up, f'pre_{b}_{i}'), None, names.pre(b, i)), (arch.pre, stride)
  for run in model.bottom_up_runs:
    s = run.scale
    if s:
      yield 'cell', Place((*up, f'down_{s}'), None, names.down(s)), (arch.enc, 2)
    for k in range(run.count):
      for i in range(0 if model.single else model.num_cells_enc):
        path = (*up, run.name, 'cells', f'cell_{i}')
        yield 'cell', Place(path, k, names.enc_cell(s, k, i)), (arch.enc, 1)
  yield from _top_down(model, names, arch, down)
  for b in range(model.num_process_blocks):
    for i in range(model.num_postprocess_cells):
      is_up = i == (model.num_postprocess_cells - 1 if model.post_up_last else 0)
      place = Place((*down, f'post_{b}_{i}'), None, names.post(b, i))
      yield 'cell', place, (arch.post, cells.UP if is_up else 1)
  yield 'conv', Place((*down, 'image_conditional'), None, names.image), None


def _top_down(model: NVAE, names: Names, arch: cells.Architecture, down: Path) -> Iterator[Module]:
  first = (*down, 'first')
  combiner = names.stem_decoder if model.single else names.dec_combiner(0)
  yield 'conv', Place((*first, 'enc_top'), None, names.enc_top), None
  yield 'conv', Place((*first, 'enc_sampler'), None, names.enc_sampler(0)), None
  yield from _flow(model, names, first, None, 0)
  yield 'conv', Place((*first, 'dec_combiner'), None, combiner), None
  group = 1
  for j, run in enumerate(model.top_down_runs):
    if j:
      yield 'cell', Place((*down, f'up_{j}'), None, names.up(group)), (arch.dec, cells.UP)
    path = (*down, run.name)
    for index in range(run.count):
      for i in range(model.num_cells_dec):
        place = Place((*path, 'cells', f'cell_{i}'), index, names.dec_cell(group, i))
        yield 'cell', place, (arch.dec, 1)
      for part in ('dec_sampler', 'enc_combiner', 'enc_sampler'):
        yield 'conv', Place((*path, part), index, getattr(names, part)(group)), None
      yield from _flow(model, names, path, index, group)
      yield 'conv', Place((*path, 'dec_combiner'), index, names.dec_combiner(group)), None
      group += 1


def _flow(model: NVAE, names: Names, path: Path, index: int | None, group: int) -> Iterator[Module]:
  for n in range(model.num_flows):
    for order in flows.ORDERS:
      place = (*path, 'latent', 'flow', f'pair{n}_{order}')
      yield 'flow', Place(place, index, names.flow(group, n, order == 'mirrored')), None
