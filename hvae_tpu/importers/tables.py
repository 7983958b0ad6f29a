"""Name tables: the arrays of a reference checkpoint, each with its parameter of ours.

The two directions are bit-for-bit inverses: arrays are only transposed, reshaped and stacked.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from flax import traverse_util
import jax
import numpy as np

from hvae_tpu.errors import UserError

Path = tuple[str, ...]
Kind = tuple[tuple[int, ...], np.dtype]  # shape and dtype
FLOAT32 = np.dtype(np.float32)
MAX_NAMES = 10  # per kind of disagreement in an error


class Layout(NamedTuple):
  """Order of the axes of one array in the source; the two functions are inverses."""

  to_ours: Callable[[np.ndarray], np.ndarray]
  to_source: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda a: a, lambda a: a)
# Kernel of a PyTorch convolution [out, in, h, w] <-> [h, w, in, out].
CONV = Layout(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))
# Matrix of a PyTorch layer [out, in] <-> [in, out].
MATRIX = Layout(np.transpose, np.transpose)
# One number per channel [1, C, 1, 1] <-> [C].
CHANNELS = Layout(lambda a: a.reshape(-1), lambda a: a.reshape(1, -1, 1, 1))
# A learned map [1, h, w, C] <-> [h, w, C].
BATCHED = Layout(lambda a: a[0], lambda a: a[None])
# A learned map [1, C, h, w] <-> [h, w, C].
MAP = Layout(lambda a: a[0].transpose(1, 2, 0), lambda a: a.transpose(2, 0, 1)[None])


class Row(NamedTuple):
  """One line of a table, as an importer writes it.

  Attributes:
    path: path of our parameter, ('decoder', 'dec_00_1x1', 'z_proj', 'kernel').
    index: index in the stack of a scanned run; None where the parameter is not stacked.
    key: name in the source.
    layout: layout of the source array.
  """

  path: Path
  index: int | None
  key: str
  layout: Layout


class Entry(NamedTuple):
  """A `Row`, with the shape and the dtype of its array in the source."""

  path: Path
  index: int | None
  key: str
  layout: Layout
  shape: tuple[int, ...]
  dtype: np.dtype = FLOAT32


class Style(NamedTuple):
  """Names and layout of a layer's arrays in a framework.

  Attributes:
    join: separator in names.
    kernel: name of the kernel.
    conv: layout of the kernel of a convolution.
  """

  join: str
  kernel: str
  conv: Layout

  def layer(
    self, path: Path, index: int | None, *parts: str, layout: Layout | None = None
  ) -> list[Row]:
    """Returns the rows of kernel and bias; `layout` is that of a kernel of another kind."""
    key = self.join.join(parts)
    return [
      Row((*path, 'kernel'), index, f'{key}{self.join}{self.kernel}', layout or self.conv),
      Row((*path, 'bias'), index, f'{key}{self.join}bias', SAME),
    ]


TORCH = Style('.', 'weight', CONV)
FLAX = Style('/', 'kernel', SAME)


def complete(rows: Iterable[Row], params: Any) -> list[Entry]:
  """Adds the shape that each array has in the source; all are float32.

  Args:
    rows: the table.
    params: our parameters, or their shapes as `jax.eval_shape` returns them.

  Raises:
    ValueError: the rows are not exactly the parameters; a defect of the table.
  """
  rows = list(rows)
  shapes = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(params).items()}
  stacked = {row.path for row in rows if row.index is not None}
  expected = {
    (path, index)
    for path, shape in shapes.items()
    for index in (range(shape[0]) if path in stacked else (None,))
  }
  named = [(row.path, row.index) for row in rows]
  if set(named) != expected or len(named) != len(expected):
    differing = sorted(map(str, expected.symmetric_difference(named)))[:MAX_NAMES]
    raise ValueError(f'{len(named)} rows for {len(expected)} parameters; differing: {differing}')
  entries = []
  for row in rows:
    shape = shapes[row.path][0 if row.index is None else 1 :]
    # No numbers are needed to see what a layout does to a shape.
    entries.append(Entry(*row, row.layout.to_source(np.broadcast_to(np.float32(0), shape)).shape))
  return entries


def same(tree: Any) -> list[Entry]:
  """Returns the table of a source with our own names, joined by '/', and our own layouts.

  Args:
    tree: our parameters or state, or their shapes as `jax.eval_shape` returns them.
  """
  return [
    Entry(path, None, '/'.join(path), SAME, tuple(leaf.shape), np.dtype(leaf.dtype))
    for path, leaf in traverse_util.flatten_dict(tree).items()
  ]


def stack(blocks: list) -> Any:
  """Stacks equal trees into one with a leading axis, in which a scanned run holds its blocks."""
  return jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)


def import_params(
  entries: list[Entry], tensors: Mapping[str, np.ndarray], source: str = 'the checkpoint'
) -> Any:
  """Returns the tree of our parameters, from arrays by their name in the source.

  Args:
    entries: the table.
    tensors: all arrays of the source, by name.
    source: name of the source for errors, e.g. the file.

  Raises:
    UserError: an array is missing, left over, or of another shape or dtype.
  """
  _compare(source, {e.key: (e.shape, e.dtype) for e in entries}, tensors)
  slices: dict[Path, dict] = {}
  for e in entries:
    slices.setdefault(e.path, {})[e.index] = e.layout.to_ours(np.asarray(tensors[e.key]))
  return traverse_util.unflatten_dict(
    {
      path: np.asarray(blocks[None], order='C')
      if None in blocks
      else stack([blocks[i] for i in sorted(blocks)])
      for path, blocks in slices.items()
    }
  )


def export_params(entries: list[Entry], params: Any) -> dict[str, np.ndarray]:
  """Returns the source's arrays by name, in the order of the table; inverts `import_params`.

  Raises:
    UserError: the parameters are not those of the model that the table was made for.
  """
  flat = {path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(params).items()}
  _compare(
    'the parameters',
    {'/'.join(path): kind for path, kind in _our_kinds(entries).items()},
    {'/'.join(path): leaf for path, leaf in flat.items()},
  )
  tensors = {}
  for e in entries:
    leaf = flat[e.path] if e.index is None else flat[e.path][e.index]
    tensors[e.key] = np.asarray(e.layout.to_source(leaf), order='C')
  return tensors


def identical(a: Any, b: Any) -> bool:
  """Tells whether two arrays have the same shape, dtype and bits; None is no array."""
  if a is None or b is None or (a.shape, a.dtype) != (b.shape, b.dtype):
    return False
  return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def part(entries: Iterable[Row | Entry], tree: Any) -> Any:
  """Returns the branches of a tree that a table covers."""
  named = {e.path[0] for e in entries}
  return {name: branch for name, branch in tree.items() if name in named}


def _our_kinds(entries: list[Entry]) -> dict[Path, Kind]:
  kinds, counts = {}, {}
  for e in entries:
    shape = e.layout.to_ours(np.broadcast_to(np.float32(0), e.shape)).shape
    counts[e.path] = counts.get(e.path, 0) + 1
    kinds[e.path] = (shape if e.index is None else (counts[e.path], *shape), e.dtype)
  return kinds


def _compare(source: str, expected: Mapping[str, Kind], arrays: Mapping[str, np.ndarray]) -> None:
  """Raises UserError unless the arrays have exactly these names, shapes and dtypes."""
  missing = [f'{name} {shape}' for name, (shape, _) in expected.items() if name not in arrays]
  extra = [f'{name} {tuple(a.shape)}' for name, a in arrays.items() if name not in expected]
  different = [
    f'{name} is {arrays[name].dtype} {tuple(arrays[name].shape)}, expected {dtype} {shape}'
    for name, (shape, dtype) in expected.items()
    if name in arrays and (tuple(arrays[name].shape), arrays[name].dtype) != (shape, dtype)
  ]
  kinds = (('missing', missing), ('not expected', extra), ('of another kind', different))
  complaints = [f'{len(names)} {kind}: {_some(names)}' for kind, names in kinds if names]
  if complaints:
    raise UserError(
      f'{source} and config.model differ: {"; ".join(complaints)}; '
      'use the config.model that the weights were trained with'
    )


def _some(names: list[str]) -> str:
  return ', '.join(names[:MAX_NAMES]) + (', ...' if len(names) > MAX_NAMES else '')
