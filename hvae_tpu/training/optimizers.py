"""Optimizers and learning-rate schedules: `config.optimizer` becomes an optax chain and a schedule.

The chain ends before the learning rate, which the train step applies by the clock of the config.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import optax
import optax.contrib

from hvae_tpu import settings
from hvae_tpu.errors import UserError
from hvae_tpu.settings import setting


def _decay(c: OptimizerConfig) -> optax.GradientTransformation:
  """Decoupled weight decay (Loshchilov & Hutter, 2019) by `weight_decay`.

  Tensors whose name, or whose module's name, is in `weight_decay_exclude` have none.
  """
  excluded = set(c.weight_decay_exclude)
  if not excluded:
    return optax.add_decayed_weights(c.weight_decay)
  has_decay = lambda path, _: excluded.isdisjoint(str(getattr(key, 'key', '')) for key in path)
  mask = lambda params: jax.tree_util.tree_map_with_path(has_decay, params)
  return optax.add_decayed_weights(c.weight_decay, mask)


def _adam(c: OptimizerConfig) -> optax.GradientTransformation:
  """Adam (Kingma & Ba, 2015)."""
  return optax.scale_by_adam(c.b1, c.b2, c.eps)


def _adam_keras(c: OptimizerConfig) -> optax.GradientTransformation:
  """Adam of Keras: epsilon is added before the bias of the second moment is corrected."""

  def update(grads: Any, state: optax.ScaleByAdamState, params: Any = None):
    del params
    mu = optax.tree.update_moment(grads, state.mu, c.b1, 1)
    nu = optax.tree.update_moment_per_elem_norm(grads, state.nu, c.b2, 2)
    count = optax.safe_increment(state.count)
    rate = jnp.sqrt(1 - c.b2**count) / (1 - c.b1**count)
    updates = jax.tree.map(lambda m, v: rate * m / (jnp.sqrt(v) + c.eps), mu, nu)
    return updates, optax.ScaleByAdamState(count, mu, nu)

  return optax.GradientTransformation(optax.scale_by_adam(c.b1, c.b2).init, update)


def _adamw(c: OptimizerConfig) -> optax.GradientTransformation:
  """Adam with decoupled weight decay."""
  return optax.chain(_adam(c), _decay(c))


def _adamax(c: OptimizerConfig) -> optax.GradientTransformation:
  """Adamax (Kingma & Ba, section 7.1), with decoupled weight decay."""
  return optax.chain(optax.scale_by_adamax(c.b1, c.b2, c.eps), _decay(c))


def _adamax_l2(c: OptimizerConfig) -> optax.GradientTransformation:
  """Adamax on the gradient plus `weight_decay` times the parameters (PyTorch's L2 penalty)."""
  return optax.chain(_decay(c), optax.scale_by_adamax(c.b1, c.b2, c.eps))


def _radam(c: OptimizerConfig) -> optax.GradientTransformation:
  """Rectified Adam (Liu et al., 2020), with decoupled weight decay."""
  return optax.chain(optax.scale_by_radam(c.b1, c.b2, c.eps, threshold=5.0), _decay(c))


def _muon(c: OptimizerConfig) -> optax.GradientTransformation:
  """Muon (Jordan et al., 2024): updates of kernels are made orthogonal; other tensors use Nadam.

  The root mean square of a kernel's update is about `muon_rms` learning rates; Adam's is
  about 0.2. `muon_iterations` (Newton-Schulz) bring its singular values near each other. The kernel
  of a convolution is a matrix from patches to pixels. In modules named by `muon_transposed` it is a
  matrix from pixels to patches. There is no weight decay.
  """
  transposed = set(c.muon_transposed)

  def matrix(path: Any, x: Array) -> optax.contrib.MuonDimensionNumbers | None:
    """Axes of inputs and outputs of kernels [.., n, m] and [.., h, w, n, m]; others are stacked."""
    names = [str(getattr(key, 'key', '')) for key in path]
    if x.ndim < 2 or not names[-1].endswith('kernel'):  # biases of stacked blocks are [count, n]
      return None
    *taps, inputs, outputs = range(x.ndim - (4 if x.ndim > 3 else 2), x.ndim)
    if transposed.isdisjoint(names):
      return optax.contrib.MuonDimensionNumbers((*taps, inputs), outputs)
    return optax.contrib.MuonDimensionNumbers(inputs, (*taps, outputs))

  return optax.contrib.muon(
    learning_rate=-1.0,  # it turns the sign, as the train step does
    ns_steps=c.muon_iterations,
    consistent_rms=c.muon_rms,
    eps=c.eps,
    adam_b1=c.b1,
    adam_b2=c.b2,
    muon_weight_dimension_numbers=lambda params: jax.tree_util.tree_map_with_path(matrix, params),
  )


OPTIMIZERS = {
  'adam': _adam,
  'adamw': _adamw,
  'adamax': _adamax,
  'adamax_l2': _adamax_l2,
  'radam': _radam,
  'adam_keras': _adam_keras,
  'muon': _muon,
}

# A schedule is (section, num_steps) -> factor of the learning rate at a step.
Schedule = Callable[['OptimizerConfig', int], Callable[[Array], Array]]


def _constant(c: OptimizerConfig, num_steps: int) -> Callable[[Array], Array]:
  """Linear warm-up from 0 over `warmup_steps`, then constant. The very first update has rate 0."""
  warmup = max(c.warmup_steps, 1)
  return lambda step: jnp.minimum(step / warmup, 1.0) if c.warmup_steps else jnp.ones(())


def _decay_steps(c: OptimizerConfig, num_steps: int) -> int:
  """Returns `decay_steps`; 0 stands for the rest of the training."""
  return max(c.decay_steps or num_steps - c.decay_start, 1)


def _low(c: OptimizerConfig) -> float:
  """Returns `min_learning_rate` as a factor of `learning_rate`."""
  return c.min_learning_rate / c.learning_rate if c.learning_rate else 0.0


def _cosine(c: OptimizerConfig, num_steps: int) -> Callable[[Array], Array]:
  """Like `constant` before `decay_start`; then half a cosine down to `min_learning_rate`."""
  warm, steps = _constant(c, num_steps), _decay_steps(c, num_steps)
  low = _low(c)

  def factor(step: Array) -> Array:
    done = jnp.minimum(step - c.decay_start, steps) / steps
    wave = (1 - low) * 0.5 * (1 + jnp.cos(math.pi * done)) + low
    return jnp.where(step < c.decay_start, warm(step), wave)

  return factor


def _cosine_torch(c: OptimizerConfig, num_steps: int) -> Callable[[Array], Array]:
  """Cosine schedule of Efficient-VDVAE's PyTorch code, to repeat its runs.

  The wave is counted from step 0 although it begins at `decay_start`. So its minimum comes that
  much earlier, and the rate rises again after it.
  """
  warm, steps = _constant(c, num_steps), _decay_steps(c, num_steps)
  low = _low(c)
  first = 1 + math.cos(math.pi * (c.decay_start - 1) / steps)

  def factor(step: Array) -> Array:
    wave = 1 + jnp.cos(math.pi * step / steps)
    wave = low + (1 - low) * wave / jnp.where(step <= steps, first, 2.0)
    return jnp.where(step < c.decay_start, warm(step), wave)

  return factor


def _cosine_epochs(c: OptimizerConfig, num_steps: int) -> Callable[[Array], Array]:
  """A staircase along half a cosine, one stair per epoch (NVAE).

  A warm-up never quite reaches `learning_rate`: the rate stays at its last step. The wave begins
  with epoch `cosine_start` and ends `cosine_epochs` later; 0: with the last epoch.
  """
  warmup = c.warmup_steps
  last = num_steps // c.steps_per_epoch - 1
  length = max(c.cosine_epochs or last - c.cosine_start, 1)
  top = (warmup - 1) / warmup if warmup else 1.0
  low = _low(c)

  def factor(step: Array) -> Array:
    done = jnp.clip(step // c.steps_per_epoch - c.cosine_start, 0, length)
    wave = low + (top - low) * 0.5 * (1 + jnp.cos(math.pi * done / length))
    return jnp.where(step < warmup, step / max(warmup, 1), wave)

  return factor


def _noam(c: OptimizerConfig, num_steps: int) -> Callable[[Array], Array]:
  """Linear warm-up, then the inverse square root of the step (Vaswani et al., 2017)."""
  warmup = max(c.warmup_steps, 1)

  def factor(step: Array) -> Array:
    step = step.astype(jnp.float32)
    falling = jax.lax.rsqrt(jnp.maximum(step, 1.0))
    return math.sqrt(warmup) * jnp.minimum(falling, step * warmup**-1.5)

  return factor


def _exponential(c: OptimizerConfig, num_steps: int) -> Callable[[Array], Array]:
  """From `decay_start` on, falls by `decay_rate` every `decay_steps` to `min_learning_rate`."""
  steps, low = _decay_steps(c, num_steps), _low(c)
  return lambda step: jnp.clip(c.decay_rate ** ((step - c.decay_start) / steps), low, 1.0)


def _warm_exponential(c: OptimizerConfig, num_steps: int) -> Callable[[Array], Array]:
  """Linear warm-up, one step at the full rate, then falls by `decay_rate` every `decay_steps`.

  The decay is continuous and counted from the end of the warm-up (EfficientMORL).
  """
  warm, steps, low = _constant(c, num_steps), _decay_steps(c, num_steps), _low(c)

  def factor(step: Array) -> Array:
    since = step - c.warmup_steps
    falling = jnp.maximum(c.decay_rate ** (since / steps), low)
    return jnp.where(since <= 1, warm(step), falling)

  return factor


SCHEDULES: dict[str, Schedule] = {
  'constant': _constant,
  'cosine': _cosine,
  'cosine_torch': _cosine_torch,
  'cosine_epochs': _cosine_epochs,
  'noam': _noam,
  'exponential': _exponential,
  'warm_exponential': _warm_exponential,
}
DECAY_AFTER_WARMUP = ('cosine', 'cosine_torch')


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """`config.optimizer`: the fields of all optimizers and schedules; each reads some of them."""

  name: str = setting('adam', choices=tuple(OPTIMIZERS))
  schedule: str = setting('constant', choices=tuple(SCHEDULES))  # shape of the learning rate
  learning_rate: float = setting(3e-4, least=0)  # after the warm-up
  warmup_steps: int = setting(0, least=0)  # steps, from rate 0
  clip_norm: float = setting(0.0, least=0)  # global L2 norm of the gradient; 0: no clipping
  b1: float = setting(0.9, least=0, below=1)
  b2: float = setting(0.999, least=0, below=1)
  eps: float = setting(1e-8, least=0)
  weight_decay: float = setting(0.0, least=0)  # not of adam, adam_keras and muon
  weight_decay_exclude: tuple[str, ...] = ()  # modules and tensors without weight decay
  # Fields of the schedules that end.
  decay_start: int = setting(0, least=0)  # step of the first decay
  decay_steps: int = setting(0, least=0)  # steps from there to the end; 0: the rest of the training
  decay_rate: float = setting(0.5, above=0, most=1)  # factor every decay_steps, if exponential
  min_learning_rate: float = setting(0.0, least=0)
  # Fields of cosine_epochs.
  steps_per_epoch: int = setting(1, least=1)  # updates of an epoch
  cosine_start: int = setting(0, least=0)  # epoch
  cosine_epochs: int = setting(0, least=0)  # epochs; 0: to the last epoch
  # Fields of muon.
  muon_rms: float = setting(0.2, least=0)  # learning rates; root mean square of a kernel's update
  muon_iterations: int = setting(5, least=0)  # iterations of Newton-Schulz
  muon_transposed: tuple[str, ...] = ()  # modules whose kernels go from pixels to patches


def create(
  section: Any, num_steps: int
) -> tuple[optax.GradientTransformation, Callable[[Array], Array]]:
  """Builds the optimizer.

  Args:
    section: `config.optimizer`, or some of its fields by name.
    num_steps: steps of the training, for schedules that end with it.

  Returns:
    The chain from gradients to updates before the learning rate, and the learning rate as a
    function of the clock, a traced int32.

  Raises:
    UserError: an unknown field, a value that is not allowed, or a decay inside the warm-up.
  """
  c = settings.checked(OptimizerConfig, section, 'config.optimizer')
  if c.schedule in DECAY_AFTER_WARMUP and c.warmup_steps > c.decay_start:
    raise UserError(
      f'config.optimizer.warmup_steps={c.warmup_steps} must not exceed '
      f'config.optimizer.decay_start={c.decay_start}'
    )
  # Without a threshold too, so that the state has one structure.
  clip = optax.clip_by_global_norm(c.clip_norm) if c.clip_norm else optax.identity()
  chain = optax.chain(clip, OPTIMIZERS[c.name](c))
  factor = SCHEDULES[c.schedule](c, num_steps)
  return chain, lambda step: c.learning_rate * factor(jnp.asarray(step))


def advance_counts(new: Any, old: Any) -> Any:
  """Returns state `old` with the step counters of `new`, as vdvae-jax does on a skipped update."""
  is_count = lambda path: str(getattr(path[-1], 'name', '')) == 'count'
  return jax.tree_util.tree_map_with_path(lambda p, n, o: n if is_count(p) else o, new, old)
