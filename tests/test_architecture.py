"""Who may import what, and the few rules about files that a reader relies on."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ('hvae_tpu', 'configs', 'data_prep')
OURS = (*PACKAGES, 'tests')
SYSTEMS = ('vdvae', 'efficient_vdvae', 'nvae', 'cwvae', 'efficient_morl')
BELOW = {  # module prefix -> what of ours it may import, as prefixes; the longest prefix counts
  'configs': {'configs'},
  'data_prep': {'data_prep'},
  'data_prep.bench': {'data_prep', 'hvae_tpu.data', 'hvae_tpu.errors'},
  'hvae_tpu': {'hvae_tpu.runs', 'hvae_tpu.state', 'hvae_tpu.checkpoints', 'hvae_tpu.models'}
  | {'hvae_tpu.evals'},
  'hvae_tpu.errors': set(),
  'hvae_tpu.main': {'hvae_tpu.modes', 'hvae_tpu.commands', 'hvae_tpu.distributed'}
  | {'hvae_tpu.buckets'},
  'hvae_tpu.commands': set(),
  'hvae_tpu.distributed': set(),
  'hvae_tpu.modes': {'hvae_tpu'},
  'hvae_tpu.plan': {'hvae_tpu.plan', 'hvae_tpu.runs', 'hvae_tpu.evals', 'hvae_tpu.models'}
  | {'hvae_tpu.optimizers', 'hvae_tpu.sharding', 'hvae_tpu.state', 'hvae_tpu.train'}
  | {'hvae_tpu.data', 'hvae_tpu.epochs'},
  'hvae_tpu.table': {'hvae_tpu.commands', 'hvae_tpu.models', 'hvae_tpu.plan'},
  'hvae_tpu.inference': {'hvae_tpu.evals', 'hvae_tpu.runs', 'hvae_tpu.sharding', 'hvae_tpu.state'}
  | {'hvae_tpu.interruption', 'hvae_tpu.importers.verdict', 'hvae_tpu.distributions'},
  'hvae_tpu.explore': {'hvae_tpu.explore', 'hvae_tpu.distributions', 'hvae_tpu.sharding'},
  'hvae_tpu.report': {'hvae_tpu.report', 'hvae_tpu.sharding', 'hvae_tpu.writing'},
  'hvae_tpu.quality': {'hvae_tpu.quality', 'hvae_tpu.importers'},
  'hvae_tpu.div_stats': {'hvae_tpu.evals', 'hvae_tpu.inference', 'hvae_tpu.writing'},
  'hvae_tpu.latents': {'hvae_tpu.distributions', 'hvae_tpu.folders'},
  'hvae_tpu.temperatures': set(),
  'hvae_tpu.plots': {'hvae_tpu.evals', 'hvae_tpu.writing'},
  'hvae_tpu.latent_activity': {'hvae_tpu.inference', 'hvae_tpu.writing'},
  'hvae_tpu.scenes': {'hvae_tpu.data', 'hvae_tpu.evals', 'hvae_tpu.inference', 'hvae_tpu.runs'}
  | {'hvae_tpu.sharding'},
  'hvae_tpu.train': {'hvae_tpu.optimizers', 'hvae_tpu.interruption', 'hvae_tpu.progress'}
  | {'hvae_tpu.sharding', 'hvae_tpu.state'},
  'hvae_tpu.state': {'hvae_tpu.sharding', 'hvae_tpu.optimizers'},
  'hvae_tpu.runs': {'hvae_tpu.checkpoints', 'hvae_tpu.data', 'hvae_tpu.models'}
  | {'hvae_tpu.sharding', 'hvae_tpu.workdir', 'hvae_tpu.state', 'hvae_tpu.optimizers'}
  | {'hvae_tpu.train', 'hvae_tpu.buckets'},
  'hvae_tpu.initial_weights': {'hvae_tpu.checkpoints', 'hvae_tpu.state'},
  'hvae_tpu.interruption': set(),
  'hvae_tpu.progress': set(),
  'hvae_tpu.epochs': set(),
  'hvae_tpu.folders': set(),
  'hvae_tpu.quiet_tensorflow': set(),
  'hvae_tpu.profiling': set(),
  'hvae_tpu.workdir': set(),
  'hvae_tpu.optimizers': set(),
  'hvae_tpu.sharding': set(),
  'hvae_tpu.checkpoints': {'hvae_tpu.sharding', 'hvae_tpu.checksums', 'hvae_tpu.buckets'},
  'hvae_tpu.checksums': set(),
  'hvae_tpu.data': {'hvae_tpu.data', 'hvae_tpu.buckets'},
  'hvae_tpu.bench.scaling': {'hvae_tpu'},
  'hvae_tpu.buckets': set(),
  'hvae_tpu.writing': {'hvae_tpu.buckets', 'hvae_tpu.quiet_tensorflow'},
  'hvae_tpu.distributions': set(),
  'hvae_tpu.layers': {'hvae_tpu.distributions'},
  'hvae_tpu.models': {'hvae_tpu.models', 'hvae_tpu.layers', 'hvae_tpu.distributions'},
  'hvae_tpu.evals': {'hvae_tpu.evals', 'hvae_tpu.distributions', 'hvae_tpu.state'}
  | {'hvae_tpu.sharding', 'hvae_tpu.temperatures', 'hvae_tpu.writing'},
  'hvae_tpu.bench': {'hvae_tpu.bench', 'hvae_tpu.commands', 'hvae_tpu.models', 'hvae_tpu.train'}
  | {'hvae_tpu.distributions', 'hvae_tpu.optimizers', 'hvae_tpu.sharding', 'hvae_tpu.state'}
  | {'hvae_tpu.plan.hlo'},
  'hvae_tpu.nonfinite': {'hvae_tpu.checkpoints'},
  'hvae_tpu.bundles': {'hvae_tpu.data', 'hvae_tpu.nonfinite', 'hvae_tpu.runs', 'hvae_tpu.workdir'}
  | {'hvae_tpu.checkpoints', 'hvae_tpu.state', 'hvae_tpu.train'},
  'hvae_tpu.importers': {
    'hvae_tpu.importers',
    'hvae_tpu.models',
    'hvae_tpu.layers',
    'hvae_tpu.quiet_tensorflow',
  }
  | {'hvae_tpu.distributions'},
  'hvae_tpu.convert': {'hvae_tpu.commands', 'hvae_tpu.conversion', 'hvae_tpu.importers'}
  | {'hvae_tpu.export'},
  'hvae_tpu.export': {'hvae_tpu.checkpoints', 'hvae_tpu.importers', 'hvae_tpu.runs'}
  | {'hvae_tpu.workdir'},
  'hvae_tpu.conversion': {'hvae_tpu.commands', 'hvae_tpu.data', 'hvae_tpu.evals', 'hvae_tpu.state'}
  | {'hvae_tpu.models', 'hvae_tpu.optimizers', 'hvae_tpu.runs', 'hvae_tpu.sharding'}
  | {'hvae_tpu.workdir', 'hvae_tpu.checkpoints', 'hvae_tpu.importers'},
}


def modules() -> dict[str, pathlib.Path]:
  """Dotted name -> file, of everything that is installed."""
  found = {}
  for package in PACKAGES:
    for path in (ROOT / package).rglob('*.py'):
      parts = path.relative_to(ROOT).with_suffix('').parts
      found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
  return found


MODULES = modules()


def imports(path: pathlib.Path) -> list[tuple[str, bool]]:
  """(module of ours, whether at the top level of the file) for every import in it."""
  tree, found = ast.parse(path.read_text()), []
  for node in ast.walk(tree):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{path}: relative imports hide who imports what'
      full = [f'{node.module}.{alias.name}' for alias in node.names]
      names = [name if name in MODULES else node.module for name in full]
    found += [(n, node in tree.body) for n in names if n.split('.')[0] in OURS]
  return found


def within(name: str, prefixes) -> bool:
  return any(name == p or name.startswith(p + '.') for p in prefixes)


def allowed(name: str) -> set[str]:
  prefixes = [p for p in BELOW if within(name, [p])]
  rule = max(prefixes, key=len)
  # A new room must be named above; only packages speak for what lies in them.
  assert rule == name or rule in ('configs', 'data_prep') or rule.count('.') == 1, name
  assert rule != 'hvae_tpu' or name == rule, f'{name} has no rule in BELOW'
  return BELOW[rule]


@pytest.mark.parametrize('name', MODULES)
def test_imports_point_one_way(name):
  for target, top in imports(MODULES[name]):
    if target == 'hvae_tpu.errors' and within(name, ['hvae_tpu']):
      continue
    if name == 'hvae_tpu.modes.train' and within(target, ['data_prep']):
      assert not top, 'data_prep is imported where a demo_* set is missing, not before'
      continue
    assert within(target, allowed(name)), f'{name} must not import {target}'


@pytest.mark.parametrize('name', [n for n in MODULES if n.startswith('hvae_tpu.modes.')])
def test_modes_do_not_import_each_other(name):
  for target, _ in imports(MODULES[name]):
    assert target != 'hvae_tpu.modes' and not target.startswith('hvae_tpu.modes.')


@pytest.mark.parametrize('name', [n for n in MODULES if n.startswith('hvae_tpu.models.')])
def test_systems_do_not_import_each_other(name):
  mine = name.split('.')[2]
  for target, _ in imports(MODULES[name]):
    others = [f'hvae_tpu.models.{s}' for s in SYSTEMS if s != mine]
    assert not within(target, others), f'{name} imports {target}'


@pytest.mark.parametrize(
  'name', [n for n in MODULES if within(n, ('hvae_tpu.evals', 'hvae_tpu.modes', 'hvae_tpu.train'))]
)
def test_systems_are_imported_by_the_table_only(name):
  systems = [f'hvae_tpu.models.{s}' for s in SYSTEMS]
  assert not any(within(target, systems) for target, _ in imports(MODULES[name]))


def test_the_trainer_names_no_system():
  words = MODULES['hvae_tpu.train'].read_text().replace('vdvae-jax', '').lower()
  for word in (*SYSTEMS, 'geco', 'batch norm', 'spectral', 'slots', 'video', 'bpd', "'kl"):
    assert word not in words, word


@pytest.mark.parametrize('package', ['hvae_tpu', 'configs', 'data_prep', 'tests'])
def test_files_are_short_and_named(package):
  for path in (ROOT / package).rglob('*.py'):
    assert len(path.read_text().splitlines()) <= 400, path
  vague = {'utils', 'util', 'common', 'helpers', 'misc'}
  names = {path.stem for path in (ROOT / package).rglob('*.py')}
  assert package == 'tests' or not vague & names
