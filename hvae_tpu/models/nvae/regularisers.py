"""Penalties on the parameters alone: pure functions of the parameter tree.

A tree of singular vectors holds the left vectors [..., O] of a convolution where the parameter tree
holds its kernel.
"""

from typing import Any

from flax import traverse_util
import jax
from jax import Array
import jax.numpy as jnp

from hvae_tpu.models.nvae import convs, flows
from hvae_tpu.nn import distributions

REGULARISERS = ('spectral', 'power')
MIN_NORM = 1e-3
FIRST_ITERATIONS, ITERATIONS = 40, 4
Path = tuple[str, ...]


def matrices(params: Any, side: str) -> dict[Path, Array]:
  """Returns the kernels that convolutions apply, as matrices [..., O, k * k * I], by path.

  Args:
    params: parameters of the network.
    side: `flow_mask_side`, see `convs.Mask`.
  """
  flat = traverse_util.flatten_dict(params)
  weights = {}
  for path, kernel in flat.items():
    if path[-1] != 'kernel' or kernel.ndim < 4:  # squeeze and excitation have matrices
      continue
    leaves = {k: flat[*path[:-1], k] for k in ('log_gain', 'gain') if (*path[:-1], k) in flat}
    mask = flows.mask_of(path[:-1], side)
    weight = jnp.moveaxis(convs.effective_kernel({'kernel': kernel, **leaves}, mask), -1, -4)
    weights[path] = weight.reshape(*weight.shape[:-3], -1)
  return weights


def normalized(v: Array) -> Array:
  """Scales rows to length 1; rows below `MIN_NORM` stay shorter. No NaN gradient at zero."""
  squares = jnp.square(v).sum(-1, keepdims=True)
  floor = MIN_NORM**2
  return v / jnp.where(squares > floor, jnp.sqrt(jnp.where(squares > floor, squares, 1)), MIN_NORM)


def first_vectors(params: Any, rng: Array) -> Any:
  """Returns random left vectors of length 1."""
  weights = {
    path: kernel.shape[:-4] + kernel.shape[-1:]
    for path, kernel in traverse_util.flatten_dict(params).items()
    if path[-1] == 'kernel' and kernel.ndim >= 4
  }
  draws = {
    path: distributions.normal(jax.random.fold_in(rng, i), shape)
    for i, (path, shape) in enumerate(weights.items())
  }
  return traverse_util.unflatten_dict({path: normalized(v) for path, v in draws.items()})


def spectral(params: Any, vectors: Any, side: str, iterations: Array | int) -> tuple[Array, Any]:
  """Sums the largest singular values of all convolutions by power iteration (NVAE, section 3.2).

  Args:
    params: parameters of the network; no gradient passes through the iteration.
    vectors: singular vectors of the step before.
    side: `flow_mask_side`, see `convs.Mask`.
    iterations: at least 1.

  Returns:
    The sum, [], and the new vectors.
  """
  weights = matrices(params, side)
  fixed = jax.lax.stop_gradient(weights)
  left = traverse_util.flatten_dict(vectors)

  def iterate(_, pairs):
    updated = {}
    for path, (u, _) in pairs.items():
      v = normalized(jnp.einsum('...oc,...o->...c', fixed[path], u))
      updated[path] = normalized(jnp.einsum('...oc,...c->...o', fixed[path], v)), v
    return updated

  start = {path: (left[path], jnp.zeros(w.shape[:-2] + w.shape[-1:])) for path, w in fixed.items()}
  pairs = jax.lax.stop_gradient(jax.lax.fori_loop(0, iterations, iterate, start))
  total = sum(
    jnp.einsum('...o,...oc,...c->...', u, weights[path], v).sum() for path, (u, v) in pairs.items()
  )
  return total, traverse_util.unflatten_dict({path: u for path, (u, _) in pairs.items()})


def power(params: Any, side: str, rng: Array) -> Array:
  """Sums squared singular values after one power step from a random vector (mgp123/nvae).

  The sum is over convolutions on the main branch of cells, and samplers. The gradient passes
  through the step too.
  """
  named = ('enc_sampler', 'dec_sampler')
  weights = {
    path: weight
    for path, weight in matrices(params, side).items()
    if path[-2] in named or any(part.startswith('op_') for part in path)
  }
  sizes = [weight[..., 0, :].size for weight in weights.values()]
  noise, total, done = distributions.normal(rng, (sum(sizes),)), jnp.zeros(()), 0
  for weight, size in zip(weights.values(), sizes, strict=True):
    start = noise[done : done + size].reshape(weight[..., 0, :].shape)
    total, done = total + power_penalty(weight, start).sum(), done + size
  return total


def power_penalty(weight: Array, start: Array) -> Array:
  """Returns ||W v||^2, [...], for v in the direction of W^T W v0.

  Args:
    weight: W [..., O, C].
    start: v0 [..., C].
  """
  times = lambda v: jnp.einsum('...oc,...c->...o', weight, v)
  v = normalized(jnp.einsum('...oc,...o->...c', weight, times(normalized(start))))
  return jnp.square(times(v)).sum(-1)


def batch_norm_scales(params: Any) -> Array:
  """Sums the largest absolute scale of every batch normalisation, []."""
  flat = traverse_util.flatten_dict(params)
  scales = (jnp.abs(leaf).max(-1).sum() for path, leaf in flat.items() if path[-1] == 'scale')
  return sum(scales, start=jnp.zeros(()))
