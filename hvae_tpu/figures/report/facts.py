"""Facts about a run besides numbers and pictures: data, configuration, commands, environment."""

import platform
import shlex
from typing import Any, NamedTuple

import flax
import jax
import numpy as np
import optax

# Sections of a config that decide the training; the other sections belong to single modes.
DECISIVE = ('data', 'model', 'optimizer', 'train', 'seed')
# Paths on a disk: they stand in commands, but not in the list of changes.
PLACES = ('data.root', 'train.init_from')


class Facts(NamedTuple):
  """Facts that the page shows.

  Attributes:
    name: name of the run.
    step: step of the checkpoint.
    head: names and values at the top of the page.
    level_names: names of the model's levels.
    card: data card.
    config: config of the run, by dotted key.
    differences: dotted key -> (published value, value of the run).
    commands: command lines that repeat the run and make this page.
    environment: versions and devices of the machine that made the page.
  """

  name: str
  step: int
  head: dict[str, str]
  level_names: tuple[str, ...]
  card: dict[str, Any]
  config: dict[str, Any]
  differences: dict[str, tuple[Any, Any]]
  commands: list[str]
  environment: dict[str, str]


def differences(published: dict[str, Any], actual: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
  """Returns the decisive keys that both flat configs have, with different values."""
  keys = [k for k in published if k in actual and k.split('.')[0] in DECISIVE]
  return {k: (published[k], actual[k]) for k in keys if published[k] != actual[k]}


def commands(
  source: str, workdir: str | None, changed: dict[str, tuple[Any, Any]], modes: list[str]
) -> list[str]:
  """Returns the command lines of a run.

  Args:
    source: config file and its argument, FILE[:ARGUMENT].
    workdir: work directory; None: the default of the config.
    changed: dotted key -> (published value, value of the run).
    modes: modes whose results the page shows.
  """
  start = f'python -m hvae_tpu.main --config={shlex.quote(source)}'
  if workdir is not None:
    start += f' --workdir={shlex.quote(workdir)}'
  flags = [shlex.quote(f'--config.{key}={_plain(new)}') for key, (_, new) in changed.items()]
  start = ' '.join([start, *flags])
  return [start, *(f'{start} --mode={mode}' for mode in modes)]


def _plain(value: Any) -> str:
  """Formats a value for the command line; a JSON list becomes a tuple."""
  return repr(tuple(value)) if isinstance(value, list) else str(value)


def environment() -> dict[str, str]:
  """Returns versions and devices of this process."""
  device = jax.devices()[0]
  return {
    'Python': platform.python_version(),
    'jax': jax.__version__,
    'flax': flax.__version__,
    'optax': optax.__version__,
    'numpy': np.__version__,
    'devices': f'{jax.device_count()} x {device.device_kind} ({device.platform})',
    'system': f'{platform.system()} {platform.machine()}',
  }
