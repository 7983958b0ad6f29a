"""What is to be said about a run besides numbers and pictures."""

import platform
import shlex
from typing import Any, NamedTuple

import flax
import jax
import numpy as np
import optax

# Sections of a config that decide what a run is; the others are of single modes.
DECISIVE = ('data', 'model', 'optimizer', 'train', 'seed')
# Say where a run found things, not what it is: commands have them, the list of changes does not.
PLACES = ('data.root', 'train.init_from')


class Facts(NamedTuple):
  """All of it as it is shown.

  Attributes:
    name: of the run.
    step: of the checkpoint.
    head: what stands at the top.
    level_names: of the model.
    card: of the data.
    config: of the run, by dotted key.
    differences: dotted key -> (published value, value of the run).
    commands: that make such a run again, and this page.
    environment: of the machine that the page was made on.
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


def differences(published: dict[str, Any], mine: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
  """Decisive keys of two flat configs with other values; a key that one lacks is passed over."""
  keys = [k for k in published if k in mine and k.split('.')[0] in DECISIVE]
  return {k: (published[k], mine[k]) for k in keys if published[k] != mine[k]}


def commands(
  source: str, workdir: str | None, changed: dict[str, tuple[Any, Any]], modes: list[str]
) -> list[str]:
  """The command lines of a run.

  Args:
    source: of its config: FILE[:ARGUMENT].
    workdir: of the run; None where it is the usual one of the config.
    changed: dotted key -> (published value, value of the run).
    modes: that made what the page shows.
  """
  start = f'python -m hvae_tpu.main --config={shlex.quote(source)}'
  if workdir is not None:
    start += f' --workdir={shlex.quote(workdir)}'
  flags = [shlex.quote(f'--config.{key}={_plain(new)}') for key, (_, new) in changed.items()]
  start = ' '.join([start, *flags])
  return [start, *(f'{start} --mode={mode}' for mode in modes)]


def _plain(value: Any) -> str:
  """JSON's list is a tuple on the command line."""
  return repr(tuple(value)) if isinstance(value, list) else str(value)


def environment() -> dict[str, str]:
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
