"""Shared parts of the commands: flags, configs, exit codes, and messages about mistakes."""

from collections.abc import Callable
import importlib.util
import inspect
import os
import pathlib
import re
import sys
import types

from absl import app, flags, logging
import ml_collections
from ml_collections import config_flags

from hvae_tpu.errors import UserError

CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'configs/<data set>.py[:system[,variant...]]; change a value by --config.a.b=c.'
)
WORKDIR = flags.DEFINE_string(
  'workdir', '', 'Work directory of the run; by default runs/<config>-<argument>.'
)
CHECKPOINT = flags.DEFINE_string(
  'checkpoint', 'latest', 'latest, best, a step, or another work directory; not for train.'
)
CACHE = os.path.expanduser('~/.cache/hvae_tpu/jax')


def run(argv: list[str], check: Callable[[], None], body: Callable[[], int]) -> int:
  """Reads the flags and runs a command.

  Args:
    argv: arguments of the process.
    check: raises if the flags contradict each other. It runs before JAX is imported, so that
      --help and mistakes in flags do not wait for it.
    body: the command; returns the exit code.

  Returns:
    The exit code of `body`; 2 for a mistake of the user; 75 for an error that may not happen again;
    130 after Ctrl-C.
  """
  app.define_help_flags()
  try:
    rest = flags.FLAGS(argv)
    if rest[1:]:
      raise ValueError(f'unexpected argument {rest[1]!r}; flags start with --')
    check()
    if CONFIG.value is not None:
      str(CONFIG.value.name)  # a file that could not be loaded says so at its first use only
  except Exception as error:  # the flag library and config files raise anything
    print(f'error: {_flag_problem(error, argv)}', file=sys.stderr)
    return 2
  import jax

  logging.set_verbosity(logging.ERROR)  # libraries remark on their own options
  jax.config.update('jax_compilation_cache_dir', os.environ.get('JAX_COMPILATION_CACHE_DIR', CACHE))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  from hvae_tpu.training.config import check_config

  try:
    if CONFIG.value is not None:
      check_config(CONFIG.value)
    return body()
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return error.exit_code
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    return 130


def config_source(config: ml_collections.ConfigDict) -> str:
  """Returns FILE[:ARGUMENT] of a config, from the flag `--config` or else from its name."""
  if flags.FLAGS.is_parsed() and CONFIG.value is config:
    return config_flags.get_config_filename(flags.FLAGS['config'])
  return f'configs/{config.name.replace("-", ".py:", 1)}'


def load_config(source: str) -> ml_collections.ConfigDict:
  """Reads the config of FILE or FILE:ARGUMENT, as `--config` does, without changes of fields.

  Raises:
    UserError: no such file, or an argument that it refuses.
  """
  module, argument = _config_module(source)
  return _get_config(module, argument, source)


def config_layers(source: str) -> dict[str, ml_collections.ConfigDict]:
  """Reads the config of FILE or FILE:ARGUMENT after each step that sets values.

  Returns:
    'default': the base of the system, if the file has one; 'config file': the data set's config of
    the system; 'variant': the config with all variants of the argument, if there are any.

  Raises:
    UserError: no such file, or an argument that it refuses.
  """
  module, argument = _config_module(source)
  default = inspect.signature(module.get_config).parameters.get('argument')
  argument = argument or (default.default if default else '')
  system, _, variants = argument.partition(',')
  config, layers = _get_config(module, system, source), {}
  systems = getattr(getattr(module, 'systems', None), 'SYSTEMS', {})
  if config.model.name in systems:
    layers['default'] = systems[config.model.name].base()
  layers['config file'] = config
  if variants:
    layers['variant'] = _get_config(module, argument, source)
  return layers


def overridden_fields(config: ml_collections.ConfigDict) -> set[str]:
  """Returns the dotted keys of a config that the command line sets."""
  if not (flags.FLAGS.is_parsed() and CONFIG.value is config):
    return set()
  return set(config_flags.get_override_values(flags.FLAGS['config']))


def _config_module(source: str) -> tuple[types.ModuleType, str]:
  """Executes the file of FILE or FILE:ARGUMENT; returns its module and the argument."""
  path, _, argument = source.partition(':')
  if not pathlib.Path(path).is_file():
    raise UserError(f'{path} is no file; give configs/<data set>.py[:system]')
  spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except ValueError as error:
    raise UserError(f'{source}: {error}') from error
  return module, argument


def _get_config(module: types.ModuleType, argument: str, source: str) -> ml_collections.ConfigDict:
  try:
    return module.get_config(argument) if argument else module.get_config()
  except ValueError as error:
    raise UserError(f'{source}: {error}') from error


def _flag_problem(error: Exception, argv: list[str]) -> str:
  """Returns one sentence about an error of reading the flags and the config file."""
  text = str(error).strip().splitlines()
  last = (text[-1] if text else type(error).__name__).strip().removeprefix('ValueError: ')
  if isinstance(error, OSError):
    return f'--config cannot be read: {last}; give a file, e.g. --config=configs/cifar10.py'
  if isinstance(error, AttributeError | KeyError):
    # The library names one part of the dotted key, in quotes.
    quoted = re.findall(r"'(\w+)\W", str(error))
    for key in (argument.split('=')[0] for argument in argv if argument.startswith('--config.')):
      if set(quoted) & set(key.split('.')[1:]):
        near = re.search(r'Did you mean "(\w+)"', str(error))
        hint = f'; did you mean {near[1]}?' if near else ''
        return f'{key.removeprefix("--")} is not a key of this config{hint}'
  if isinstance(error, ModuleNotFoundError) and (error.name or '').startswith('configs'):
    return (
      f'{error}: a config file imports its system from configs/systems of the checkout; start the '
      f'command in the checkout, or install it with: pip install -e .'
    )
  return last
