"""Shared helpers of the modes: loading a run, iterating with progress, stopping on a signal.

Most modes read as: check the options, load the run, iterate over data or samples, store results.
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import datetime
import functools
from pathlib import Path
import time
from typing import Any

import jax
import ml_collections

from hvae_tpu import evals, settings
from hvae_tpu.devices.distributed import print_once
from hvae_tpu.devices.interruption import Interrupted, Interruption
from hvae_tpu.importers import import_report
from hvae_tpu.models import protocol
from hvae_tpu.nn.distributions import STATISTICS
from hvae_tpu.runs import restore
from hvae_tpu.runs.restore import LoadedRun
from hvae_tpu.settings import setting

SHOW_EVERY = 5.0  # seconds between progress lines


@dataclasses.dataclass(frozen=True)
class PictureOptions:
  """Options of modes that draw pictures."""

  # statistic of the pixels' distribution
  statistic: str = setting('mean', choices=tuple(STATISTICS))
  seed: int = setting(0, least=0)  # seed of all noise


@dataclasses.dataclass(frozen=True)
class SampleOptions(PictureOptions):
  """Options of modes that draw samples from the prior."""

  # batches of samples that renew the batch statistics before sampling; 0: no renewal
  refresh_iterations: int = setting(0, least=0)
  refresh_num: int = setting(16, least=1)  # samples in each of these batches


@dataclasses.dataclass(frozen=True)
class TemperedOptions(SampleOptions):
  """Options of modes that draw samples at one temperature."""

  # temperature: one number, one number per level, or 'linear(a,b)' from the coarsest level on
  temperature: tuple[float | str, ...] = setting((1.0,), least=0)


def read_options(options: type, config: ml_collections.ConfigDict, mode: str) -> Any:
  """Returns the options `config.<mode>` of a mode; UserError if one is out of its range."""
  return settings.checked(options, config[mode], f'config.{mode}')


def load_run(
  config: ml_collections.ConfigDict,
  workdir: Path,
  checkpoint: str,
  mode: str,
  needs: tuple[str, ...],
) -> LoadedRun:
  """Loads the weights that `config.evals.weights` names ('both': the moving average).

  Args:
    config, workdir, checkpoint: see `restore.open_run`.
    mode: name of the mode that needs the run.
    needs: attributes and methods that the model must have.

  Raises:
    UserError: no such run or checkpoint, another model, or one that lacks what the mode needs.
  """
  evals.check_weights(config.evals.weights)
  weights = evals.WEIGHTS[config.evals.weights][0]
  run = restore.open_run(workdir, checkpoint, config, (weights,)).select(weights)
  protocol.require(run.model, needs, f'--mode={mode}')
  print_once(*import_report.describe(run.meta.get('import')))
  return run


def model_for_sampling(
  run: LoadedRun, options: PictureOptions, temperature: Any
) -> tuple[Any, Any]:
  """Returns model and model state for drawing pictures by the options of a mode.

  Args:
    options: options of the mode; nonzero `refresh_iterations` renew the batch statistics first.
    temperature: temperature of the samples that renew them.

  Raises:
    UserError: batch statistics are to be renewed, but the model has none.
  """
  model = with_statistic(run.model, options.statistic)
  iterations = getattr(options, 'refresh_iterations', 0)
  if not iterations:
    return model, run.model_state
  protocol.require(model, ('refresh',), f'refresh_iterations={iterations}', 'set it to 0')
  refresh = jax.jit(model.refresh, static_argnums=(4, 5))
  key = jax.random.fold_in(jax.random.key(options.seed), 1)
  state = refresh(run.params, run.model_state, key, temperature, iterations, options.refresh_num)
  return model, state


def with_statistic(model: Any, statistic: str) -> Any:
  """Returns the model with this statistic of the pixels in pictures, if it lets one choose."""
  if not hasattr(model, 'output_statistic'):
    return model
  return dataclasses.replace(model, output_statistic=statistic)


def interruptible(
  body: Callable[[ml_collections.ConfigDict, Path, str, Callable[[], None]], None],
) -> Callable[[ml_collections.ConfigDict, Path, str], int]:
  """Makes the `run(config, workdir, checkpoint)` of a mode from its body.

  Args:
    body: called with a fourth argument, `raise_if_interrupted`, which it calls between batches.

  Returns:
    The function. It returns the exit code: 0, or that of the signal that stopped it.
  """

  @functools.wraps(body)
  def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
    interruption = Interruption()
    with interruption:
      try:
        body(config, workdir, checkpoint, interruption.raise_if_interrupted)
        return 0
      except Interrupted:
        print_once('stopped; nothing was written')
        return interruption.exit_code

  return run


def with_progress(
  items: Iterable,
  total: int,
  what: str = 'batch',
  raise_if_interrupted: Callable[[], None] = lambda: None,
) -> Iterator:
  """Passes items on, and prints now and then how many are done.

  Args:
    total: number of items.
    what: name of an item.
    raise_if_interrupted: called before each item.
  """
  began = last = time.perf_counter()
  for done, item in enumerate(items):
    raise_if_interrupted()
    now = time.perf_counter()
    if done == 1:
      began = now  # the first one was compiling
    elif done and now - last >= SHOW_EVERY:
      left = datetime.timedelta(seconds=round((now - began) / (done - 1) * (total - done)))
      print_once(f'{what} {done:,}/{total:,}  {left} left')
      last = now
    yield item
