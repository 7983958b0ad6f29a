"""Replaces random draws, and records intermediate results, while a network is traced."""

from collections.abc import Callable, Iterator
import contextlib
from typing import Any

import jax.numpy as jnp

from hvae_tpu.nn import distributions


@contextlib.contextmanager
def replaced(owner: Any, **attributes: Any) -> Iterator[None]:
  """Replaces attributes of a module or class."""
  originals = {name: getattr(owner, name) for name in attributes}
  try:
    for name, value in attributes.items():
      setattr(owner, name, value)
    yield
  finally:
    for name, value in originals.items():
      setattr(owner, name, value)


@contextlib.contextmanager
def watched(
  network: Any, is_recorded: Callable[..., bool] = lambda module, _: False
) -> Iterator[list]:
  """Yields a list, to which every run of the network appends (its result, its intermediates).

  Args:
    network: class of the network.
    is_recorded: (module, method name) -> whether the method's result is an intermediate too.
  """
  runs, apply = [], network.apply

  def apply_and_record(net, *args, mutable=(), **kwargs):
    result, variables = apply(
      net, *args, mutable=[*mutable, 'intermediates'], capture_intermediates=is_recorded, **kwargs
    )
    runs.append((result, variables.pop('intermediates', {})))
    return (result, variables) if mutable else result

  with replaced(network, apply=apply_and_record):
    yield runs


def noise(**draws: Callable[..., Any]) -> contextlib.AbstractContextManager[None]:
  """Replaces `distributions.normal`, `uniform`, ... by (rng, shape, ...) -> draws."""
  return replaced(distributions, **draws)


def constant(value: Any) -> Callable[..., Any]:
  """Makes a function whose draws all equal `value`, a number or a traced scalar."""
  return lambda rng, shape, *limits: jnp.full(shape, value, jnp.float32)
