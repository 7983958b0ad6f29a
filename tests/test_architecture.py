"""Who may import what, and the few rules about files that a reader relies on."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ('hvae_tpu', 'configs', 'data_prep')
OURS = (*PACKAGES, 'tests')
SYSTEMS = ('vdvae', 'efficient_vdvae', 'nvae', 'cwvae', 'efficient_morl')

# Every room of `hvae_tpu/`, from the ground up: it may import the rooms named here, itself, and
# `errors`. All of them stand above it in this table, so no two rooms import each other.
ROOMS = {
  'storage': '',
  'devices': '',
  'nn': '',
  'models': 'nn',
  'data': 'storage',
  'metrics': 'storage',
  'figures': 'storage devices',
  'generation': 'nn models devices',
  'runs': 'storage devices nn models data figures',
  'training': 'storage devices models data runs',
  'evals': 'storage devices nn models metrics figures training',
  'importers': 'storage devices nn models data runs training evals',
  'planning': 'storage devices nn models data training evals',
  'modes': 'storage devices nn models data metrics figures generation runs training evals '
  'importers planning',
}
FILES = {  # the files beside the rooms: the public API, the commands, and what commands share
  '': 'runs',
  'errors': '',
  'settings': '',
  'commands': 'training',
  'main': 'commands storage devices modes',
  'convert': 'commands importers',
  'table': 'planning',
  'bench': 'commands planning',
}
EXCEPTIONS = {  # module -> further rooms, and why
  'hvae_tpu.planning.config_tables': 'commands',  # the body of a command
  'hvae_tpu.planning.benchmarks.scaling': 'commands main runs storage',  # times the command
  'hvae_tpu.modes.report': 'commands',  # tells the command of a config
  'hvae_tpu.modes.show_config': 'commands',  # reads configs as the commands do
}
DATA_PREP = {
  'core': '',
  'raw': 'core',
  'synthetic': 'core',
  'datasets': 'core raw synthetic',
}


def modules() -> dict[str, pathlib.Path]:
  """Dotted name -> file, of everything that is installed."""
  files = {}
  for package in PACKAGES:
    for path in (ROOT / package).rglob('*.py'):
      parts = path.relative_to(ROOT).with_suffix('').parts
      files['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
  return files


MODULES = modules()


def imports(path: pathlib.Path) -> list[tuple[str, bool]]:
  """(module of ours, whether at the top level of the file) for every import in it."""
  tree, targets = ast.parse(path.read_text()), []
  for node in ast.walk(tree):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{path}: relative imports hide who imports what'
      full = [f'{node.module}.{alias.name}' for alias in node.names]
      names = [name if name in MODULES else node.module for name in full]
    targets += [(n, node in tree.body) for n in names if n.split('.')[0] in OURS]
  return targets


def within(name: str, prefixes) -> bool:
  return any(name == p or name.startswith(p + '.') for p in prefixes)


def allowed(name: str) -> list[str]:
  """Returns the prefixes of modules that module `name` may import."""
  package, *rest = name.split('.')
  room = rest[0] if rest else ''
  if package == 'configs':
    rooms = ('models', 'modes', 'evals', 'training', 'settings')
    return ['configs', *(f'hvae_tpu.{r}' for r in rooms)]
  if package == 'data_prep':
    if room in DATA_PREP:
      rooms = [f'data_prep.{r}' for r in (room, 'errors', *DATA_PREP[room].split())]
      return [*rooms, 'hvae_tpu.storage']
    return ['data_prep', *(['hvae_tpu.data', 'hvae_tpu.errors'] if room == 'bench' else [])]
  rules = {**ROOMS, **FILES}
  assert room in rules, f'{name} stands in a room without a line in ROOMS'
  rooms = [room, 'errors', 'settings', *rules[room].split(), *EXCEPTIONS.get(name, '').split()]
  return [f'hvae_tpu.{r}' for r in rooms if r]


def test_rooms_point_one_way():
  for table in (ROOMS, DATA_PREP):
    order = list(table)
    for room, below in table.items():
      assert all(order.index(b) < order.index(room) for b in below.split()), room


@pytest.mark.parametrize('name', MODULES)
def test_imports_point_one_way(name):
  for target, top in imports(MODULES[name]):
    if name == 'hvae_tpu.modes.train' and within(target, ['data_prep']):
      assert not top, 'data_prep is imported where a demo_* set is missing, not before'
      continue
    assert within(target, allowed(name)), f'{name} must not import {target}'


def test_modes_do_not_import_each_other():
  shared = [f'hvae_tpu.modes.{name}' for name in ('loaded_run', 'pruning', 'scenes')]
  table = 'hvae_tpu.modes'  # imports all modes, so that they can read it inside functions only
  for name in (n for n in MODULES if n.startswith('hvae_tpu.modes.')):
    for target, top in imports(MODULES[name]):
      assert not within(target, [table]) or target in shared or (target == table and not top), name


def test_systems_do_not_import_each_other():
  for name in (n for n in MODULES if n.startswith('hvae_tpu.models.')):
    others = [f'hvae_tpu.models.{s}' for s in SYSTEMS if s != name.split('.')[2]]
    for target, _ in imports(MODULES[name]):
      assert not within(target, others), f'{name} imports {target}'


@pytest.mark.parametrize('room', ['evals', 'modes', 'training', 'runs', 'figures', 'generation'])
def test_systems_are_imported_by_the_table_only(room):
  systems = [f'hvae_tpu.models.{s}' for s in SYSTEMS]
  for name in (n for n in MODULES if within(n, [f'hvae_tpu.{room}'])):
    assert not any(within(target, systems) for target, _ in imports(MODULES[name])), name


@pytest.mark.parametrize('module', ['step', 'loop', 'setup', 'state'])
def test_the_trainer_names_no_system(module):
  text = MODULES[f'hvae_tpu.training.{module}'].read_text().replace('vdvae-jax', '').lower()
  words = {*SYSTEMS, 'geco', 'batch norm', 'spectral', 'slots', 'bpd', "'kl"}
  if module != 'setup':  # a batch of videos has another shape
    words.add('video')
  for word in words:
    assert word not in text, word


def test_modules_are_imported_under_their_own_names():
  aliased = re.compile(r'^\s*(?:from \S+ )?import \w+ as \w+_lib\b', re.MULTILINE)
  for name, path in MODULES.items():
    assert not aliased.search(path.read_text()), name


@pytest.mark.parametrize('package', ['hvae_tpu', 'configs', 'data_prep', 'tests', 'launch'])
def test_docstrings_begin_with_a_verb_or_a_noun(package):
  documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  for path in (ROOT / package).rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      text = ast.get_docstring(node) if isinstance(node, documented) else None
      first = (text or 'A').split()[0]
      assert first not in ('What', 'Of', 'Where', 'Those', 'How'), f'{path}: {text}'


@pytest.mark.parametrize('package', ['hvae_tpu', 'configs', 'data_prep', 'tests'])
def test_files_are_short_and_named(package):
  for path in (ROOT / package).rglob('*.py'):
    assert len(path.read_text().splitlines()) <= 400, path
  vague = {'utils', 'util', 'common', 'helpers', 'misc'}
  names = {path.stem for path in (ROOT / package).rglob('*.py')}
  assert package == 'tests' or not vague & names
