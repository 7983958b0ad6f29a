"""Every default stands once: in the dataclass of its section; configs state only differences."""

import ast
from collections.abc import Iterator
import inspect
from typing import Any

import pytest

from configs import systems
from configs.systems import efficient_morl, efficient_vdvae, nvae, trainer
from hvae_tpu import models
from tests.configs.test_configs import ARGUMENTS, FILES

# Fields that functions compute from the shape of a network or the length of a training; a result
# may meet the default.
COMPUTED = {
  *(f'model.{name}' for name in efficient_vdvae.lists({1: 1}, widths={1: 1}, ratios={1: 1.0})),
  *(
    f'{section}.{name}'
    for section, fields in nvae.schedule(1, 1, epochs=1, warmup_epochs=1, norm=0.0).items()
    for name in fields
  ),
}
# These translate the keys of another program, which has other defaults.
TRANSLATED = {'images64'}


def leaves(fields: dict[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Yields the dotted name and the value of every field of nested dicts."""
  for name, value in fields.items():
    if isinstance(value, dict):
      yield from leaves(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def literals(node: ast.expr) -> Any:
  """Returns the value of a literal or of a call of `dict` with literals; raises ValueError."""
  if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict':
    return {keyword.arg: literals(keyword.value) for keyword in node.keywords}
  return ast.literal_eval(node)


def statements(system: Any) -> Iterator[tuple[str, Any]]:
  """Yields the dotted name and the value of every field that `base` of a system states."""
  for node in ast.walk(ast.parse(inspect.getsource(system.base))):
    if isinstance(node, ast.Assign):
      target, value = ast.unparse(node.targets[0]), node.value
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith('.update'):
      target = ast.unparse(node.func).removesuffix('.update')
      value = ast.Call(ast.Name('dict'), [], node.keywords)
    else:
      continue
    section, _, name = target.partition('.')
    try:
      if section == 'config':
        yield from leaves({name: literals(value)})
    except ValueError:
      pass  # an expression, such as `models.defaults(...)`


@pytest.mark.parametrize('name', systems.SYSTEMS)
def test_a_system_takes_its_model_from_the_dataclass(name):
  assert systems.SYSTEMS[name].base().model.to_dict() == models.defaults(name)


@pytest.mark.parametrize('name', systems.SYSTEMS)
def test_a_system_states_only_what_differs_from_the_trainer(name):
  above = efficient_morl.base() if name == 'slot_attention' else trainer.base()
  defaults = dict(leaves(above.to_dict()))
  stated = dict(statements(systems.SYSTEMS[name]))
  assert stated
  assert not [field for field, value in stated.items() if defaults[field] == value]


@pytest.mark.parametrize(('name', 'argument'), [a for a in ARGUMENTS if a[0] not in TRANSLATED])
def test_a_variant_states_only_what_differs(name, argument):
  """Fields of model and optimizer, against the config without the last variant."""
  file, (system, *variants) = FILES[name], argument.split(',')
  names = [system, *(','.join(variants[: i + 1]) for i in range(len(variants)))]
  config = systems.SYSTEMS[system].base()
  config.update(file.DATA)
  for earlier in names[:-1]:
    config.update(file.DIFFERENCES[system][earlier])
  before = dict(leaves(config.to_dict()))
  stated = file.DIFFERENCES[system][names[-1]]
  fields = leaves({section: stated.get(section, {}) for section in ('model', 'optimizer')})
  again = [field for field, value in fields if before[field] == value and field not in COMPUTED]
  assert not again
