"""What the modes that use a trained run have in common: opening it, passing over data, stopping."""

from collections.abc import Callable, Iterator
import dataclasses
import datetime
import hashlib
from pathlib import Path
import sys
import time
from typing import Any

import jax
import ml_collections
import numpy as np

from hvae_tpu import evals
from hvae_tpu.devices import sharding
from hvae_tpu.devices.interruption import Interrupted, Interruption
from hvae_tpu.errors import UserError
from hvae_tpu.importers import import_report
from hvae_tpu.models import protocol
from hvae_tpu.nn.distributions import STATISTICS
from hvae_tpu.runs import restore
from hvae_tpu.training.state import eval_params

SHOW_EVERY = 5.0  # seconds between progress lines


@dataclasses.dataclass(frozen=True)
class Trained:
  """One set of weights of a run.

  Attributes:
    run: as opened.
    weights: 'ema' or 'raw', which of them.
    params: those.
  """

  run: restore.Run
  weights: str
  params: Any

  @property
  def stem(self) -> str:
    """What the files of its results begin with."""
    return f'{self.run.state.step}-{self.weights}'

  def origin(self) -> dict[str, Any]:
    """What results should be stored with, so that they are not mixed with those of others."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((self.params, self.run.state.model_state)):
      digest.update(np.ascontiguousarray(sharding.to_host(leaf)))
    return {
      'run': str(self.run.workdir),
      'step': int(self.run.state.step),
      'weights': self.weights,
      'model': self.run.config.model.name,
      'sha256': digest.hexdigest(),
    }


def open_trained(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  mode: str,
  needs: tuple[str, ...],
) -> Trained:
  """Opens the weights that `config.evals.weights` names ('both': the average).

  Args:
    config, workdir, checkpoint: as `runs.open_run` takes them.
    mode: what asks.
    needs: attributes and methods that the model must have.

  Raises:
    UserError: no such run or checkpoint, another model, or one that lacks what the mode needs.
  """
  evals.check_weights(config.evals.weights)
  weights = evals.WEIGHTS[config.evals.weights][0]
  run = restore.open_run(workdir, checkpoint, config, (weights,))
  protocol.require(run.model, needs, mode)
  say(*import_report.describe(run.meta.get('import')))
  return Trained(run, weights, eval_params(run.state, weights))


def check_least(mode: str, options: ml_collections.ConfigDict, **least: int) -> None:
  """Raises UserError if an option of a mode is below the least number that it may be."""
  for key, value in least.items():
    if options[key] < value:
      raise UserError(f'config.{mode}.{key}={options[key]} must be at least {value}')


def prepared(
  trained: Trained, options: ml_collections.ConfigDict, temperature: Any
) -> tuple[Any, Any]:
  """Model and state to draw pictures with.

  Args:
    options: of the mode: `statistic`, of the pixels; `seed`; `refresh_iterations` and
      `refresh_num`, by which batch statistics are renewed, where the model has any.
    temperature: that they are renewed at.

  Raises:
    UserError: an unknown statistic, or statistics are to be renewed of a model that has none.
  """
  model, state = trained.run.model, trained.run.state.model_state
  if options.statistic not in STATISTICS:
    raise UserError(f'statistic={options.statistic!r} must be one of {", ".join(STATISTICS)}')
  model = dataclasses.replace(model, output_statistic=options.statistic)
  iterations = options.get('refresh_iterations', 0)
  if not iterations:
    return model, state
  if not hasattr(model, 'refresh'):
    raise UserError(
      f'refresh_iterations={iterations} needs refresh(), which {type(model).__name__} lacks; set '
      f'it to 0'
    )
  refresh = jax.jit(model.refresh, static_argnums=(4, 5))
  key = jax.random.fold_in(jax.random.key(options.seed), 1)
  return model, refresh(trained.params, state, key, temperature, iterations, options.refresh_num)


def check_origin(stored: dict[str, Any], here: dict[str, Any], what: str, remedy: str) -> None:
  """Raises UserError if `what` was made with other weights than those of `here`."""
  if stored.get('sha256') != here['sha256']:
    tell = lambda o: f'{o.get("model")} of {o.get("run")}, step {o.get("step")}, {o.get("weights")}'
    raise UserError(f'{what} belongs to {tell(stored)}, not to {tell(here)}; {remedy}')


def interruptible(body: Callable[[Callable[[], None]], int]) -> int:
  """Runs the work of a mode: `body(check)`, where `check` is to be called between batches.

  Returns:
    The exit code of the body, or that of the signal that stopped it.
  """
  interruption = Interruption()
  with interruption:
    try:
      return body(interruption.raise_if_interrupted)
    except Interrupted:
      say('stopped; nothing was written')
      return interruption.exit_code


def shown(batches: Iterator, total: int, what: str = 'batch') -> Iterator:
  """Passes batches (or `what` they are) on, and prints now and then how many are done."""
  began = last = time.perf_counter()
  for done, batch in enumerate(batches):
    now = time.perf_counter()
    if done == 1:
      began = now  # the first one was compiling
    elif done and now - last >= SHOW_EVERY:
      left = datetime.timedelta(seconds=round((now - began) / (done - 1) * (total - done)))
      say(f'{what} {done:,}/{total:,}  {left} left')
      last = now
    yield batch


def say(*lines: str) -> None:
  """Prints on one process only."""
  if jax.process_index() == 0:
    for line in lines:
      print(line)
    sys.stdout.flush()
