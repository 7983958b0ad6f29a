"""Stored results of a reference implementation, and how ours are compared with them.

A forward file (.npz) holds images, `input/image_uint8` unless `Forward` says otherwise, and
`output/eps<number>/<name>`: what the reference computed from them when every draw of its latent
variables was that number. It may also hold `param/<name>`, the weights, and `config`.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hvae_tpu.errors import UserError
from hvae_tpu.importers import tables
from hvae_tpu.nn import distributions

# The networks of golden files are tiny and run a few times, so on a CPU nearly all the time goes
# into compiling.
QUICK = {
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
  'xla_cpu_use_fusion_emitters': False,
}


PASS = re.compile(r'eps\d+(\.\d+)?')  # what every draw of the latent variables is replaced by


class Tolerance(NamedTuple):
  """|found - expected| <= rtol * |expected| + atol + of_max * max |expected|."""

  rtol: float
  atol: float
  of_max: float = 0.0


class Difference(NamedTuple):
  """How far an array is from the expected one.

  Attributes:
    error: largest absolute difference; NaN counts as infinite.
    share: of the tolerance that the worst element uses up; above 1 it fails.
    text: why it fails; empty if it does not.
  """

  error: float
  share: float
  text: str


def difference(found: Any, expected: Any, tolerance: Tolerance) -> Difference:
  """Compares two arrays element by element."""
  found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
  if found.shape != expected.shape:
    return Difference(np.inf, np.inf, f'shape {found.shape}, expected {expected.shape}')
  if not expected.size:
    return Difference(0.0, 0.0, '')
  size = np.abs(expected)
  with np.errstate(divide='ignore', invalid='ignore'):
    allowed = tolerance.rtol * size + tolerance.atol + tolerance.of_max * size.max()
    error = np.where(found == expected, 0.0, np.abs(found - expected))
    error = np.where(np.isnan(error), np.inf, error)
    share = np.where(error == 0, 0.0, error / allowed)
    share = np.where(np.isnan(share), np.inf, share)  # not finite where it should be, or reversed
  worst = np.unravel_index(np.argmax(share), share.shape)
  text = ''
  if share[worst] > 1:
    text = (
      f'{(share > 1).sum()} of {share.size} beyond {tolerance}, worst at '
      f'{tuple(map(int, worst))}: {found[worst]:.9g}, expected {expected[worst]:.9g}'
    )
  return Difference(float(error.max()), float(share[worst]), text)


@contextlib.contextmanager
def replaced(owner: Any, **attributes: Any) -> Iterator[None]:
  """Attributes of a module or class, replaced while something is traced."""
  kept = {name: getattr(owner, name) for name in attributes}
  try:
    for name, value in attributes.items():
      setattr(owner, name, value)
    yield
  finally:
    for name, value in kept.items():
      setattr(owner, name, value)


@contextlib.contextmanager
def watched(network: Any, keep: Callable[..., bool] = lambda module, _: False) -> Iterator[list]:
  """Yields a list; every run of the network appends what it returned and kept inside.

  Args:
    network: class of the network.
    keep: (module, method name) -> whether to keep what it returns too.
  """
  seen, apply = [], network.apply

  def apply_and_keep(net, *args, mutable=(), **kwargs):
    result, variables = apply(
      net, *args, mutable=[*mutable, 'intermediates'], capture_intermediates=keep, **kwargs
    )
    seen.append((result, variables.pop('intermediates', {})))
    return (result, variables) if mutable else result

  with replaced(network, apply=apply_and_keep):
    yield seen


def noise(**draws: Callable[..., Any]) -> contextlib.AbstractContextManager[None]:
  """Replaces `distributions.normal`, `uniform`, ... by (rng, shape, ...) -> draws, for tracing."""
  return replaced(distributions, **draws)


def constant(value: Any) -> Callable[..., Any]:
  """Draws that all equal `value`, a number or a traced scalar."""
  return lambda rng, shape, *limits: jnp.full(shape, value, jnp.float32)


def _images(stored: Mapping[str, np.ndarray]) -> np.ndarray | None:
  return stored.get('input/image_uint8')


class Forward(NamedTuple):
  """What a format knows about the forward files of its reference.

  Attributes:
    run: (model, *fields, image, eps) -> (loss, results by the names of the files), for tracing.
    expected: (name, stored array) -> that array in our layout.
    tolerance: name -> `Tolerance`.
    apart: names (before the first '/') that `run` does not give.
    fields: of the train state, which `run` needs and the weights in the file fill.
    passes: names of the passes to compare; each ends with `eps<number>`.
    images: arrays of the file -> its images, NHWC, or None if it has none.
    derived: last parts of the names of stored weights that nothing reads.
  """

  run: Callable[..., tuple[Any, dict[str, Any]]]
  expected: Callable[[str, np.ndarray], np.ndarray]
  tolerance: Callable[[str], Tolerance]
  apart: tuple[str, ...]
  fields: tuple[str, ...] = ('params',)
  passes: re.Pattern[str] = PASS
  images: Callable[[Mapping[str, np.ndarray]], np.ndarray | None] = _images
  derived: tuple[str, ...] = ()


def check(
  stored: Mapping[str, np.ndarray],
  forward: Forward,
  entries: Mapping[str, list[tables.Entry]],
  model: Any,
  state: Any,
  batch: Mapping[str, Any],
) -> dict[str, Difference]:
  """Runs the network on the stored images.

  Args:
    stored: the arrays of a forward file.
    forward: of the format.
    entries: tables of the fields of the train state.
    model, state: what was imported.
    batch: shapes of a batch of the model.

  Returns:
    '<pass>/<name>' -> how far our result is from the stored one.

  Raises:
    UserError: it is not a forward file, is of other weights or images, or has results unknown here.
  """
  names = [name.split('/') for name in stored]
  # Files may also hold generations and gradients, which need more than one pass.
  passes = dict.fromkeys(
    n[1] for n in names if len(n) > 2 and n[0] == 'output' and forward.passes.fullmatch(n[1])
  )
  image = forward.images(stored)
  if not passes or image is None:
    raise UserError(
      'it has no images (input/...) or no output/...eps*/..., so it is no forward file'
    )
  _check_weights(stored, forward, entries, state)
  image = np.asarray(image)
  expected_shape = batch['image'].shape[1:]
  if image.dtype != np.uint8 or image.shape[1:] != expected_shape:
    raise UserError(
      f'its images are {image.dtype} {image.shape[1:]}, those of config.model are uint8 '
      f'{expected_shape}; use the config that it was made with'
    )
  run = jax.jit(
    lambda *args: forward.run(model, *args)[1],
    compiler_options=QUICK if jax.default_backend() == 'cpu' else {},
  )
  differences, weights = {}, [getattr(state, field) for field in forward.fields]
  for name in passes:
    with jax.default_matmul_precision('highest'):
      found = jax.device_get(run(*weights, image, float(name.rpartition('eps')[2])))
    start = f'output/{name}/'
    for key, value in stored.items():
      rest = key.removeprefix(start)
      if rest == key or rest.split('/')[0] in forward.apart:
        continue
      if rest not in found:
        raise UserError(f'its {key} is unknown to this format; use a file of the same reference')
      expected = forward.expected(rest, value)
      differences[f'{name}/{rest}'] = difference(found[rest], expected, forward.tolerance(rest))
  return differences


def _check_weights(
  stored: Mapping[str, np.ndarray],
  forward: Forward,
  entries: Mapping[str, list[tables.Entry]],
  state: Any,
) -> None:
  given = {
    key.removeprefix('param/'): value
    for key, value in stored.items()
    if key.startswith('param/') and key.rpartition('.')[2] not in forward.derived
  }
  if not given:
    return
  ours = {}
  for field in forward.fields:
    table = entries[field]
    ours |= tables.export_params(table, tables.part(table, getattr(state, field)))
  differing = [key for key in ours | given if not identical(ours.get(key), given.get(key))]
  if differing:
    raise UserError(
      f'its weights are not the imported ones: {len(differing)} of {len(ours | given)} differ, '
      f'the first is {differing[0]}; use results of the same weights'
    )


def identical(a: Any, b: Any) -> bool:
  """Whether two arrays have the same shape, dtype and bits."""
  if a is None or b is None or (a.shape, a.dtype) != (b.shape, b.dtype):
    return False
  return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
