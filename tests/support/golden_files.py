"""Stored results of reference implementations: where they lie, how they are read and compared."""

from collections.abc import Callable, Mapping, Sequence
import fnmatch
import functools
import hashlib
import io
import itertools
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / 'tests' / 'golden'  # a small part of the files, kept with the code


class Golden:
  """One file: arrays by key (`.npz`), or values by the two outer keys of its content (`.json`).

  Equal files share one object, so what a test computes for one serves its copies.
  """

  def __init__(self, path: Path, values: Mapping[str, Any]):
    self.path = path
    self._values = values
    self.keys = tuple(self._values)
    self._keys = frozenset(self.keys)

  def __getitem__(self, key: str) -> Any:
    return self._values[key]

  def __contains__(self, key: str) -> bool:
    return key in self._keys

  @functools.cached_property
  def config(self) -> dict[str, Any]:
    return json.loads(str(self['config']))

  def under(self, prefix: str) -> dict[str, Any]:
    """Values whose key begins with `prefix`/, by the rest of their key."""
    start = prefix + '/'
    return {key.removeprefix(start): self[key] for key in self.keys if key.startswith(start)}

  def names_under(self, prefix: str) -> list[str]:
    """Returns the parts of keys after `prefix`/, up to the next slash; no value is read."""
    start = prefix + '/'
    names = (key.removeprefix(start).split('/')[0] for key in self.keys if key.startswith(start))
    return list(dict.fromkeys(names))

  def has(self, *patterns: str) -> bool:
    """Returns whether any key matches any of the patterns."""
    return any(fnmatch.filter(self.keys, pattern) for pattern in patterns)

  def numbered(self, prefix: str) -> list[Any]:
    """Values of `prefix`/0, `prefix`/1, ..."""
    values = self.under(prefix)
    return [values[str(i)] for i in range(len(values))]

  def beside(self, name: str) -> 'Golden':
    """Returns the file `name` of the same folder, or of another folder of this system."""
    others = [golden for _, golden in find(self.path.parent.name)]
    for folder in (self.path.parent, *(other.path.parent for other in others)):
      if (folder / name).is_file():
        return read(folder / name)
    raise FileNotFoundError(f'{self.path} needs {name}, which no folder of golden files has')


def folders(system: str) -> list[Path]:
  """Returns `$HVAE_GOLDEN_DIR` or the folder beside the checkout, and the committed folder."""
  given = os.environ.get('HVAE_GOLDEN_DIR')
  if given and not Path(given).is_dir():
    raise FileNotFoundError(f'HVAE_GOLDEN_DIR={given} is not a folder')
  main = Path(given) if given else ROOT.parent / 'shared' / 'golden'
  candidates = dict.fromkeys(root.resolve() / system for root in (main, COMMITTED))
  return [folder for folder in candidates if folder.is_dir()]


@functools.cache
def find(system: str) -> tuple[tuple[str, Golden], ...]:
  """Returns (test id, file) of every file: its name, and its folder where the name occurs twice.

  Equal files of the same name are listed once.
  """
  files = dict.fromkeys(read(path) for folder in folders(system) for path in _files(folder))
  names = [golden.path.name for golden in files]
  return tuple(
    (path.name if names.count(path.name) == 1 else f'{path.name}@{_place(path)}', golden)
    for golden in files
    for path in [golden.path]
  )


def committed(system: str) -> frozenset[Golden]:
  """Returns the files of a system that are kept with the code."""
  folder = COMMITTED / system
  return frozenset(map(read, _files(folder))) if folder.is_dir() else frozenset()


def _files(folder: Path) -> list[Path]:
  return [path for path in sorted(folder.iterdir()) if path.suffix in ('.npz', '.json')]


def _place(path: Path) -> str:
  return '/'.join(path.parts[-4:-2])


Check = Callable[[], None]
Kinds = Mapping[tuple[str, ...], Callable[[Golden], dict[str, Check]]]


def cases(golden: Golden, kinds: Kinds) -> dict[str, Check]:
  """Returns the checks of a file by name, chosen by its keys.

  A file that no kind recognises, or that its kind cannot read, has one check, which fails.

  Args:
    golden: the file.
    kinds: patterns that each match a key of every file of a kind -> its checks by name. The first
      kind that matches counts.
  """
  for patterns, of_kind in kinds.items():
    if all(fnmatch.filter(golden.keys, pattern) for pattern in patterns):
      try:
        checks = of_kind(golden)
      except Exception as error:  # the other files are still to be collected
        return {'unreadable': functools.partial(_unreadable, golden, error)}
      if checks:
        return checks
  return {'unknown': functools.partial(_unknown, golden)}


def checks(system: str, kinds: Kinds, quick: Sequence[str]) -> list[Any]:
  """Returns one parameter of a test for every file and check of a system.

  Unless `is_complete`, a check has the mark `slow` if its file is not kept with the code, or if
  '<file>-<check>' matches none of the patterns `quick`.
  """
  always = committed(system)

  def marks(golden: Golden, case: str) -> tuple[Any, ...]:
    name = f'{golden.path.name}-{case}'
    is_quick = golden in always and any(fnmatch.fnmatch(name, pattern) for pattern in quick)
    return () if is_quick or is_complete() else (pytest.mark.slow,)

  return [
    pytest.param(check, id=f'{name}-{case}', marks=marks(golden, case))
    for name, golden in find(system)
    for case, check in cases(golden, kinds).items()
  ]


_asked_for = False


def ask_for_all() -> None:
  """Makes the checks of every file part of a run without the mark `slow`."""
  global _asked_for
  _asked_for = True


def is_complete() -> bool:
  """Returns whether a run without marks checks every file: on request or by `$HVAE_GOLDEN_DIR`."""
  return _asked_for or bool(os.environ.get('HVAE_GOLDEN_DIR'))


def _unknown(golden: Golden) -> None:
  pytest.fail(f'no check recognises {golden.path} by its keys, e.g. {golden.keys[:5]}')


def _unreadable(golden: Golden, error: Exception) -> None:
  raise ValueError(f'the checks of {golden.path} cannot be chosen') from error


_READ: dict[tuple[str, str], Golden] = {}


def read(path: Path) -> Golden:
  data = path.read_bytes()
  key = path.name, hashlib.sha256(data).hexdigest()
  if key not in _READ:
    _READ[key] = Golden(path, _values(path.suffix, data))
  return _READ[key]


def _values(suffix: str, data: bytes) -> Mapping[str, Any]:
  if suffix == '.npz':
    return np.load(io.BytesIO(data), allow_pickle=False)
  return {
    f'{outer}/{inner}': value
    for outer, values in json.loads(data).items()
    if isinstance(values, dict)
    for inner, value in values.items()
  }


class Tolerance(NamedTuple):
  """|value - expected| <= rtol * |expected| + atol + of_max * max |expected|."""

  rtol: float
  atol: float
  of_max: float = 0.0


EXACT = Tolerance(0, 0)


def difference(values: Any, expected: Any, tolerance: Tolerance) -> str:
  """Compares two arrays element by element; returns why they differ, or ''."""
  values, expected = np.asarray(values, np.float64), np.asarray(expected, np.float64)
  if values.shape != expected.shape:
    return f'shape {values.shape}, expected {expected.shape}'
  if not expected.size:
    return ''
  size = np.abs(expected)
  with np.errstate(divide='ignore', invalid='ignore'):
    allowed = tolerance.rtol * size + tolerance.atol + tolerance.of_max * size.max()
    error = np.where(values == expected, 0.0, np.abs(values - expected))
    error = np.where(np.isnan(error), np.inf, error)
    share = np.where(error == 0, 0.0, error / allowed)
    share = np.where(np.isnan(share), np.inf, share)  # not finite where it should be, or reversed
  worst = np.unravel_index(np.argmax(share), share.shape)
  if share[worst] <= 1:
    return ''
  return (
    f'{(share > 1).sum()} of {share.size} beyond {tolerance}, worst at '
    f'{tuple(map(int, worst))}: {values[worst]:.9g}, expected {expected[worst]:.9g}'
  )


def compare(
  results: Mapping[str, Any], expected: Mapping[str, Any], tolerance: Callable[[str], Tolerance]
) -> None:
  """Fails with one line for every expected key whose result is missing or beyond its tolerance."""
  fail_with(differences(results, expected, tolerance), len(expected))


def differences(
  results: Mapping[str, Any], expected: Mapping[str, Any], tolerance: Callable[[str], Tolerance]
) -> dict[str, str]:
  """Returns a message for every expected key whose result is missing or beyond its tolerance."""
  assert expected, 'nothing to compare'
  messages = {}
  for key, value in expected.items():
    text = 'nothing checks it'
    if key in results:
      text = difference(results[key], value, tolerance(key))
    if text:
      messages[key] = text
  return messages


def fail_with(messages: Mapping[str, str], count: int) -> None:
  """Fails with the messages, if there are any, of `count` comparisons."""
  lines = [f'{key}: {text}' for key, text in messages.items()]
  assert not lines, f'{len(lines)} of {count} differ\n' + '\n'.join(lines)


def select(golden: Golden, values: Mapping[str, Any], prefix: str = 'output') -> dict[str, Any]:
  """Returns the stored arrays of those names in `values` that the file has below `prefix`."""
  stored = {name: f'{prefix}/{name}' for name in values}
  return {name: golden[key] for name, key in stored.items() if key in golden}


def compare_images(results: Any, expected: Any) -> None:
  """Compares uint8 pictures: at most 0.5% of the values are off, by one level.

  Such values lie at the boundaries of a truncation.
  """
  results, expected = np.asarray(results), np.asarray(expected)
  assert (results.dtype, results.shape) == (np.uint8, expected.shape)
  error = np.abs(results.astype(int) - expected)
  assert error.max() <= 1, f'off by {error.max()} levels'
  assert (error > 0).mean() <= 0.005, f'{(error > 0).mean():.2%} of the values are off'


# The networks of golden files are tiny and run a few times, so on a CPU nearly all the time goes
# into compiling.
QUICK = {
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
  'xla_cpu_use_fusion_emitters': False,
}


def quick_jit(function: Callable[..., Any]) -> Callable[..., Any]:
  """Compiles at full matrix product precision; on a CPU quickly rather than well."""
  options = QUICK if jax.default_backend() == 'cpu' else {}
  jitted = jax.jit(function, compiler_options=options)

  @functools.wraps(function)
  def call(*args):
    with jax.default_matmul_precision('highest'):
      return jax.device_get(jitted(*args))

  return call


def in_turn(*arrays: Any) -> Callable[..., Any]:
  """Returns a draw that gives one array per call, again and again."""
  turn = itertools.cycle(arrays)

  def draw(rng, shape, *limits):
    array = next(turn)
    assert array.shape == tuple(shape), f'noise of shape {array.shape} for a draw of {shape}'
    return jax.numpy.asarray(array)

  return draw
