"""Checkpoints of a run: train state, config, data card and results of evaluations (Orbax).

Layout: `<workdir>/checkpoints/<step>/`, each with an item `state` and a JSON item `meta`. The
checkpoint of step N holds N updates. Saving is asynchronous; a step appears under its final name
only when it is complete. `meta` also holds a checksum of every array, compared after restoring.
"""

from collections.abc import Callable, Sequence
import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from hvae_tpu.devices import sharding
from hvae_tpu.devices.distributed import print_once
from hvae_tpu.errors import TransientError, UserError
from hvae_tpu.storage import buckets, checksums

FORMAT = 1


class DamagedCheckpoint(UserError):
  """A complete checkpoint whose files cannot be read, or differ from the saved arrays."""


@dataclasses.dataclass
class _KeepBest(policies.PreservationPolicy):
  """A rule of Orbax that preserves the checkpoint with the smallest stored value of a metric."""

  value: Callable[[int], float]

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
    values = [self.value(checkpoint.step) for checkpoint in checkpoints]
    finite = [value for value in values if math.isfinite(value)]
    best = values.index(min(finite)) if finite else None
    return [i == best for i in range(len(values))]


class Checkpoints:
  """The checkpoints of one work directory."""

  def __init__(
    self,
    workdir: str | Path,
    *,
    keep_latest: int = 1,
    keep_every: int = 0,
    best_metric: str = '',
    read_only: bool = False,
  ):
    """Opens the checkpoints; makes their folder unless `read_only`.

    Args:
      workdir: work directory of the run.
      keep_latest: number of newest checkpoints to keep; at least 1.
      keep_every: also keep the steps that are multiples of this; 0: none.
      best_metric: also keep the checkpoint with the smallest stored value of this; '': none.
      read_only: whether to never write or delete.

    Raises:
      UserError: the place cannot be written.
    """
    workdir = buckets.as_path(workdir)
    if buckets.is_remote(workdir):
      buckets.check_client()
    self.directory = (workdir if buckets.is_remote(workdir) else workdir.absolute()) / 'checkpoints'
    if not read_only:
      try:
        self.directory.mkdir(parents=True, exist_ok=True)
      except OSError as error:
        raise UserError(f'{workdir} cannot be written ({error}); give another --workdir') from error
    # A rule of Orbax that knows only the best would delete the newest.
    rules = [policies.LatestN(keep_latest)]
    if keep_every:
      rules.append(policies.EveryNSteps(keep_every))
    if best_metric:
      rules.append(_KeepBest(lambda step: self._metric(step, best_metric)))
    options = ocp.CheckpointManagerOptions(
      preservation_policy=policies.AnyPreservationPolicy(rules), read_only=read_only
    )
    # One handler for whole and partial restores: a manager fixes it by its first use.
    handlers = {'state': ocp.PyTreeCheckpointHandler(), 'meta': ocp.JsonCheckpointHandler()}
    self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)

  @property
  def steps(self) -> list[int]:
    """Steps of the complete checkpoints, ascending."""
    return sorted(self._manager.all_steps())

  def resolve(self, which: str, best_metric: str = '') -> int:
    """Returns the step that a value of `--checkpoint` stands for.

    Args:
      which: 'latest', 'best' or a number.
      best_metric: stored result whose smallest value is the best.

    Raises:
      UserError: there is no such checkpoint.
    """
    steps = self.steps
    if not steps:
      raise UserError(f'{self.directory} holds no checkpoint; train first, or correct --workdir')
    if which == 'latest':
      return steps[-1]
    if which == 'best':
      return self._best(steps, best_metric)
    if not which.isdigit() or int(which) not in steps:
      raise UserError(
        f"--checkpoint={which} must be 'latest', 'best', a work directory, or one of the steps "
        f'{", ".join(map(str, steps))} in {self.directory}'
      )
    return int(which)

  def _best(self, steps: list[int], metric: str) -> int:
    """Returns the step with the smallest stored value of a metric."""
    values = {step: self._metric(step, metric) for step in steps}
    values = {step: value for step, value in values.items() if math.isfinite(value)}
    if not values:
      raise UserError(
        f'--checkpoint=best: no checkpoint in {self.directory} has a result {metric!r} '
        f'(config.train.best_metric); use --checkpoint=latest'
      )
    return min(values, key=values.get)

  def _metric(self, step: int, metric: str) -> float:
    """Returns a stored evaluation result; NaN if it is missing or damaged.

    Raises:
      TransientError: it cannot be read now. With NaN, the best checkpoint would be deleted.
    """
    try:
      return float(self.meta(step)['metrics'].get(metric, math.nan))
    except DamagedCheckpoint:
      return math.nan

  def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
    """Starts saving; the state may be donated to the next step as soon as this returns.

    Args:
      step: updates attempted.
      state: the `TrainState`.
      meta: JSON: `config`, `card`, `metrics` (name -> number of the newest evaluations).
    """
    if step in self.steps:
      return
    meta = {**meta, 'format': FORMAT, 'checksums': checksums.checksums(_by_name(state))}
    self._manager.save(
      step,
      args=ocp.args.Composite(state=ocp.args.PyTreeSave(state), meta=ocp.args.JsonSave(meta)),
    )

  def meta(self, step: int) -> dict[str, Any]:
    """Reads the JSON item. Raises DamagedCheckpoint, TransientError."""
    path = self.directory / str(step) / 'meta' / 'metadata'
    try:
      meta = json.loads(path.read_text())
    except Exception as error:  # TensorFlow, which reads buckets, has kinds of its own
      raise _damage(path.parents[1], error) from error
    if meta.get('format') != FORMAT:
      raise UserError(
        f'checkpoint {path.parents[1]} has format {meta.get("format")}, this version reads {FORMAT}'
      )
    return meta

  def restore(self, step: int, abstract: Any) -> Any:
    """Restores the whole state with the sharding of `abstract`, on any mesh.

    Raises:
      UserError: the stored arrays have other names, shapes or dtypes.
      DamagedCheckpoint: the arrays cannot be read, or differ from the saved ones.
      TransientError: the arrays cannot be read now.
    """
    return self._restore(step, abstract)

  def restore_undamaged(
    self, steps: Sequence[int], restore: Callable[[int], Any]
  ) -> tuple[int, Any]:
    """Restores the newest of `steps` that is not damaged; prints the damage of newer ones.

    Args:
      steps: checkpoints to choose from.
      restore: function of a step, such as `self.restore` with its other arguments.

    Returns:
      The step, and the result of `restore`.

    Raises:
      DamagedCheckpoint: all of them are damaged.
    """
    for step in sorted(steps, reverse=True):
      state, problem = None, None
      try:
        state = restore(step)
      except DamagedCheckpoint as error:
        problem = error
      if not _anywhere(problem is not None):
        return step, state
      problem = problem or DamagedCheckpoint(
        f'checkpoint {self.directory / str(step)} is damaged for another process'
      )
      if step == min(steps):
        raise problem
      print_once(f'{problem}; using the one before')

  def set_aside(self, step: int) -> Path:
    """Renames a checkpoint to `<workdir>/damaged-checkpoint-<step>-<n>`: nothing is deleted, and
    its step can be saved again. Returns the new path."""
    workdir = self.directory.parent
    targets = (workdir / f'damaged-checkpoint-{step}-{i}' for i in itertools.count(1))
    target = next(path for path in targets if not path.exists())
    _barrier()  # every process has chosen the name before it is taken
    if jax.process_index() == 0:
      (self.directory / str(step)).rename(target)
    _barrier()  # no process reads the folder before it is renamed
    self._manager.reload()
    return target

  def restore_part(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
    """Restores some fields of the state, such as {'ema_params': ..., 'model_state': ...}."""
    return self._restore(step, abstract, partial_restore=True)

  def _restore(self, step: int, abstract: Any, **options) -> Any:
    """Restores arrays and compares their checksums; `options` are those of Orbax."""
    self._check(step, abstract, whole=not options)
    expected = self.meta(step)['checksums']
    arguments = ocp.args.PyTreeRestore(
      item=abstract,
      restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
      **options,
    )
    path = self.directory / str(step)
    try:
      state = self._manager.restore(step, args=ocp.args.Composite(state=arguments))['state']
      jax.block_until_ready(state)
    except Exception as error:  # Orbax and TensorStore raise many types for damaged files
      raise _damage(path, error) from error
    if wrong := checksums.differing(_by_name(state), expected):
      raise DamagedCheckpoint(
        f'checkpoint {path} is damaged: {", ".join(wrong[:3])}'
        f'{f" and {len(wrong) - 3} more arrays" if len(wrong) > 3 else ""} differ from what was '
        f'saved (checksums)'
      )
    return state

  def shapes(self, step: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shape and dtype of every stored array, by its '/'-joined path."""
    return {
      name: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype)
      for name, leaf in _by_name(self._metadata(step)).items()
    }

  def _metadata(self, step: int) -> dict[str, Any]:
    """Returns Orbax's description of the state: trees of leaves with `shape` and `dtype`."""
    try:
      return self._manager.item_metadata(step)['state'].tree
    except Exception as error:  # as above
      raise _damage(self.directory / str(step), error) from error

  def restore_named(self, step: int, field: str, mesh: Mesh) -> dict[str, np.ndarray]:
    """Restores one field of the state: path inside the field -> array, replicated."""
    stored = self._metadata(step).get(field)
    place = sharding.replicated(mesh)
    abstract = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype, sharding=place), stored
    )
    if not jax.tree.leaves(abstract):
      return {}
    restored = self.restore_part(step, {field: abstract})[field]
    return {name: np.asarray(leaf) for name, leaf in _by_name(restored).items()}

  def _check(self, step: int, abstract: Any, whole: bool) -> None:
    """Raises UserError if stored arrays do not fit; Orbax would cast another dtype in silence.

    Args:
      step: step of the checkpoint.
      abstract: the expected arrays.
      whole: whether other stored arrays are an error.
    """
    stored, expected = self.shapes(step), _by_name(abstract)
    problems = [f'{name} is not expected' for name in stored if whole and name not in expected]
    for name, leaf in expected.items():
      shape = stored.get(name)
      if shape is None:
        problems.append(f'{name} is missing')
      elif (shape.shape, shape.dtype) != (leaf.shape, leaf.dtype):
        problems.append(
          f'{name} is {shape.dtype}{list(shape.shape)}, expected {leaf.dtype}{list(leaf.shape)}'
        )
    if problems:
      more = f' and {len(problems) - 5} more' if len(problems) > 5 else ''
      raise UserError(
        f'{self.directory / str(step)} does not fit the config: {"; ".join(problems[:5])}{more}; '
        f'use the config that it was trained with'
      )

  def wait(self) -> None:
    """Waits until the save in progress is complete."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, and closes the files."""
    self._manager.close()


# Answers of a machine, a file system or a bucket whose files are undamaged: codes in messages, and
# names of TensorFlow's exceptions.
NOT_DAMAGE = (
  *('RESOURCE_EXHAUSTED', 'PERMISSION_DENIED', 'UNAVAILABLE', 'DEADLINE_EXCEEDED'),
  *('ResourceExhaustedError', 'PermissionDeniedError', 'UnavailableError'),
  *('DeadlineExceededError', 'UnauthenticatedError', 'AbortedError'),
)
MISSING = FileNotFoundError | NotADirectoryError | IsADirectoryError


def _damage(path: Path, error: Exception) -> UserError:
  """Returns the error to raise for an exception while reading a checkpoint."""
  reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
  answered = isinstance(error, OSError | MemoryError) and not isinstance(error, MISSING)
  if answered or any(code in f'{type(error).__name__}: {error}' for code in NOT_DAMAGE):
    return TransientError(f'checkpoint {path} could not be read: {reason}; nothing was changed')
  return DamagedCheckpoint(f'checkpoint {path} is damaged: {reason}')


def _barrier() -> None:
  """Waits until every process is here."""
  _anywhere(False)


def _anywhere(flag: bool) -> bool:
  """Returns whether the flag is set on any process; waits for all processes."""
  if jax.process_count() == 1:
    return flag
  return bool(multihost_utils.process_allgather(np.array(flag)).any())


def path_name(path: tuple) -> str:
  """Returns the '/'-joined names of the key path of a leaf."""
  return '/'.join(
    str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key)))) for key in path
  )


def _by_name(tree: Any) -> dict[str, Any]:
  """Returns the leaves of a tree by the names of their paths."""
  return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
