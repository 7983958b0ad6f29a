"""The recipes of `.github/CONTRIBUTING.md` are followed to the letter in a copy of the tree."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / '.github' / 'CONTRIBUTING.md').read_text()
BLOCK = re.compile(r'^`([\w/.]+)`\n\n```(python|diff)\n(.*?)^```', re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.launch


def follow(recipe: str, root: pathlib.Path) -> None:
  """Writes the files of a recipe, and applies its changes to files that are there."""
  section = re.search(rf'^## {recipe}\n(.*?)(?=^## |\Z)', TEXT, re.MULTILINE | re.DOTALL)[1]
  blocks = BLOCK.findall(section)
  assert len(blocks) == section.count('```python') + section.count('```diff') > 1
  for name, kind, content in blocks:
    path = root / name
    if kind == 'python':
      assert not path.exists(), f'the recipe would overwrite {name}'
      path.write_text(content)
      continue
    text = path.read_text()
    for hunk in content.split('@@\n'):
      lines = hunk.splitlines(keepends=True)
      before = ''.join(line[1:] for line in lines if line[0] in ' -')
      assert text.count(before) == 1, f'{name} must have once:\n{before}'
      text = text.replace(before, ''.join(line[1:] for line in lines if line[0] in ' +'))
    path.write_text(text)


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
  """A copy of the program, with both recipes followed."""
  root = tmp_path_factory.mktemp('tree')
  for package in ('hvae_tpu', 'configs', 'data_prep'):
    shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns('__pycache__'))
  shutil.copy(ROOT / 'pyproject.toml', root)
  for recipe in ('A system', 'A mode'):
    follow(recipe, root)
  return root


def main(tree, data_root, *flags: str) -> str:
  """Runs hvae_tpu.main of the copy; returns its output."""
  command = [sys.executable, '-m', 'hvae_tpu.main', f'--workdir={tree / "run"}', *flags]
  env = {**os.environ, 'HVAE_DATA': str(data_root), 'JAX_PLATFORMS': 'cpu'}
  done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=600)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def test_recipes_are_written_in_the_style_of_the_program(tree):
  """The copy has no package of ours installed beside it that ruff would sort otherwise."""
  for arguments in (['check'], ['format', '--check']):
    command = [sys.executable, '-m', 'ruff', *arguments, '.']
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_system_trains_evaluates_and_samples(tree, data_root):
  config = '--config=configs/plain_digits.py:plain_vae,debug'
  assert 'saved step 20' in main(tree, data_root, config)
  assert 'nats per example' in main(tree, data_root, config, '--mode=eval')
  results = json.loads(next((tree / 'run' / 'eval').glob('*.json')).read_text())['results']
  assert 0 < results['elbo/kl'] < results['elbo/neg_elbo'] < 784
  sampled = """
import jax, hvae_tpu
model, params, state, config = hvae_tpu.load('run')
images = model.sample(params, state, jax.random.key(0), 3)
assert images.shape == (3, 32, 32, 1) and images.dtype == 'uint8' and images.std() > 0
"""
  env = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  subprocess.run([sys.executable, '-c', sampled], cwd=tree, env=env, check=True)


def test_a_mode_runs_and_can_be_reset(tree, data_root):
  shutil.rmtree(tree / 'run', ignore_errors=True)
  config = '--config=configs/demo_mnist.py:vdvae,debug'
  main(tree, data_root, config)
  main(tree, data_root, config, '--mode=latent_moments', '--config.latent_moments.num_batches=2')
  levels = json.loads(next((tree / 'run' / 'latent_moments').glob('*.json')).read_text())
  assert len(levels) > 2 and all(level['deviation'] > 0 for level in levels.values())
  assert 'latent_moments' in main(tree, data_root, config, '--mode=reset')
