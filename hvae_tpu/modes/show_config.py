"""`--mode=config`: the resolved config, a line per field, with the source of its value."""

from collections.abc import Mapping
import inspect
import io
from pathlib import Path
import tokenize

import jax
import ml_collections

from hvae_tpu import commands, evals, models
from hvae_tpu.runs.workdir import flatten
from hvae_tpu.training.config import SECTIONS

FOLDERS = ()
IN_BUCKETS = True
COMMAND_LINE = 'command line'


def run(config: ml_collections.ConfigDict, workdir: Path, checkpoint: str) -> int:
  """Prints `config.<field> = <value>`, the source of the value, and the comment of the field.

  Sources are 'default', 'config file', 'variant' and 'command line'. Neither data nor a work
  directory is needed. Returns the exit code.
  """
  if jax.process_index():
    return 0
  layers = commands.config_layers(commands.config_source(config))
  sources = value_sources(config, layers, commands.overridden_fields(config))
  comments = section_comments(config.model.name)
  values = {key: repr(value) for key, value in flatten(config.to_dict()).items()}
  for key, value in values.items():
    line = f'config.{key} = {value}'
    comment = f'  # {comments[key]}' if key in comments else ''
    print(f'{line:<56} {sources[key]:<12}{comment}'.rstrip())
  return 0


def value_sources(
  config: ml_collections.ConfigDict,
  layers: Mapping[str, ml_collections.ConfigDict],
  overridden: set[str],
) -> dict[str, str]:
  """Finds the source of the value of every field.

  Args:
    config: the resolved config.
    layers: see `commands.config_layers`.
    overridden: dotted keys that the command line sets.

  Returns:
    The source by dotted key: 'command line', or the last layer that changed the value.
  """
  flat = {name: flatten(layer.to_dict()) for name, layer in layers.items()}
  names = list(flat)
  sources = {}
  for key, value in flatten(config.to_dict()).items():
    if key in overridden or value != flat[names[-1]].get(key, value):
      sources[key] = COMMAND_LINE
      continue
    source = names[0]
    for before, name in zip(names, names[1:], strict=False):
      if key not in flat[before] or flat[name].get(key) != flat[before][key]:
        source = name
    sources[key] = source
  return sources


def section_comments(model: str) -> dict[str, str]:
  """Returns the comments of the fields of all sections, by dotted key; `model` names the model."""
  from hvae_tpu.modes import MODES  # the table imports this file

  sections = {**SECTIONS, 'evals': evals.Settings, 'model': models.MODELS[model]}
  modules = list(MODES.items())
  modules += [(f'evals.{name}', evaluation) for name, evaluation in evals.EVALS.items()]
  sections |= {name: module.Options for name, module in modules if hasattr(module, 'Options')}
  comments = {
    f'{name}.{field}': comment
    for name, section in sections.items()
    for field, comment in field_comments(section).items()
  }
  every = field_comments(evals.Schedule)['every']
  return comments | {f'evals.{name}.every': every for name in evals.EVALS}


def field_comments(section: type) -> dict[str, str]:
  """Reads the comments of the fields of a dataclass from its source and those of its bases.

  A comment stands behind its field, or on the lines above it.
  """
  comments = {}
  for base in reversed(section.__mro__[:-1]):
    above: list[str] = []
    field = ''
    tokens = tokenize.generate_tokens(io.StringIO(inspect.getsource(base)).readline)
    for token in tokens:
      text = token.string.removeprefix('# ')
      alone = not token.line[: token.start[1]].strip()
      if token.type == tokenize.COMMENT and alone:
        above.append(text)
      elif token.type == tokenize.COMMENT and field:
        comments[field] = text
      elif token.type == tokenize.NAME and alone:
        field = token.string if token.line[token.end[1] :].startswith(':') else ''
        if field in base.__annotations__ and above:
          comments[field] = ' '.join(above)
        above = []
  return comments
