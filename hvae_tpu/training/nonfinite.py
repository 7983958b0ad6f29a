"""Finds the origin of NaNs and infinities: among named arrays, and inside a computation."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np

from hvae_tpu.runs.checkpoints import path_name


def first_leaf(tree: Any) -> str | None:
  """Returns the '/'-joined name of the first array with a NaN or an infinity; None if none has."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    if not bool(_is_finite(leaf)):
      return path_name(path)
  return None


@jax.jit
def _is_finite(leaf: jax.Array) -> jax.Array:
  return jnp.isfinite(leaf).all()


class _NonFinite(Exception):
  """The first non-finite intermediate; carries its description."""


def first_intermediate(function: Callable, *args: Any) -> str | None:
  """Runs a function operation by operation and names the first non-finite result.

  Scans are run iteration by iteration, and calls are entered. Other control flow counts as one
  operation.

  Args:
    function: pure function of arrays.
    *args: its arguments, pytrees of arrays.

  Returns:
    The primitive, its place (module path and source line), and a summary of its result; None if
    every result is finite. An argument that is not finite is not an intermediate.
  """
  closed = jax.make_jaxpr(function)(*args)
  flat = [jnp.asarray(leaf) for leaf in jax.tree.leaves(args)]
  try:
    _run(closed.jaxpr, closed.consts, flat, '')
  except _NonFinite as error:
    return str(error)
  return None


# Primitive -> its parameter that holds the called function.
CALLS = {
  'jit': 'jaxpr',
  'pjit': 'jaxpr',
  'closed_call': 'call_jaxpr',
  'remat': 'jaxpr',
  'checkpoint': 'jaxpr',
  'custom_jvp_call': 'call_jaxpr',
  'custom_vjp_call': 'call_jaxpr',
}


def _run(jaxpr: Any, consts: list, args: list, where: str) -> list:
  """Evaluates a jaxpr operation by operation; `where` is the module path of its caller."""
  values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
  read = lambda v: v.val if isinstance(v, core.Literal) else values[v]
  for eqn in jaxpr.eqns:
    inputs = [read(v) for v in eqn.invars]
    name, stack = eqn.primitive.name, str(eqn.source_info.name_stack)
    place = '/'.join(filter(None, (where, stack)))
    if name in CALLS:
      outputs = _call(eqn.params[CALLS[name]], inputs, place)
    elif name == 'scan':
      outputs = _scan(eqn.params, inputs, place)
    else:
      outputs = eqn.primitive.bind(*inputs, **eqn.params)
      outputs = outputs if eqn.primitive.multiple_results else [outputs]
      _check(name, eqn, outputs, place)
    values.update(zip(eqn.outvars, outputs, strict=True))
  return [read(v) for v in jaxpr.outvars]


def _call(called: Any, inputs: list, place: str) -> list:
  """Evaluates a called function, with or without constants."""
  if hasattr(called, 'consts'):
    return _run(called.jaxpr, called.consts, inputs, place)
  return _run(called, [], inputs, place)


def _scan(params: dict[str, Any], inputs: list, place: str) -> list:
  """Evaluates a scan iteration by iteration."""
  num_consts, num_carry = params['num_consts'], params['num_carry']
  consts, carry = inputs[:num_consts], inputs[num_consts : num_consts + num_carry]
  sequences, results = inputs[num_consts + num_carry :], []
  order = range(params['length'])
  for i in reversed(order) if params['reverse'] else order:
    slices = [sequence[i] for sequence in sequences]
    outputs = _call(params['jaxpr'], [*consts, *carry, *slices], f'{place}[{i}]')
    carry = outputs[:num_carry]
    results.append(outputs[num_carry:])
  if params['reverse']:
    results.reverse()
  return [*carry, *(jnp.stack(column) for column in zip(*results, strict=True))]


def _check(name: str, eqn: Any, outputs: list, place: str) -> None:
  """Raises _NonFinite if a result of an operation is not finite."""
  for value in outputs:
    if not jnp.issubdtype(getattr(value, 'dtype', np.int32), jnp.floating):
      continue
    finite = np.isfinite(np.asarray(value, np.float32))
    if not finite.all():
      source = _source_line(eqn)
      raise _NonFinite(
        f'{name} in {place or "the function"} ({source}): {finite.size - finite.sum()} of '
        f'{finite.size} values of a {value.dtype}{list(value.shape)} are not finite'
      )


def _source_line(eqn: Any) -> str:
  """Returns file:line of the code of this package that made the operation."""
  frames = getattr(eqn.source_info.traceback, 'frames', [])
  for frame in frames:
    if '/hvae_tpu/' in frame.file_name:
      return f'{frame.file_name.rpartition("/hvae_tpu/")[2]}:{frame.line_num}'
  return 'source unknown'
