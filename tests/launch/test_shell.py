"""The shell scripts."""

import pathlib
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.launch
ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = [*sorted((ROOT / 'launch').glob('*.sh')), ROOT / '.ci' / 'run']


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
  beside = pathlib.Path(sys.executable).with_name('shellcheck')  # of the extra `test`
  command = str(beside) if beside.exists() else shutil.which('shellcheck')
  if command is None:
    pytest.fail("shellcheck is missing; install the extra 'test'")
  done = subprocess.run([command, '-x', path], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout


def test_commands_can_be_started():
  for path in SCRIPTS:
    if path.read_text().startswith('#!'):
      assert path.stat().st_mode & 0o100, path
