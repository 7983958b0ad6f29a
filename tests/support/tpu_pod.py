"""launch/tpu_pod.sh in the hands of tests, against a cloud that is a folder; see fake_cloud.py."""

from collections.abc import Callable
import contextlib
import json
import os
import pathlib
import pty
import signal
import subprocess
import time

from tests.support import fake_cloud

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / 'launch' / 'tpu_pod.sh')
WORKDIR = 'gs://bucket/runs/a'
FLAGS = ('--config=configs/cifar10.py:vdvae,debug', "--config.sample.temperatures=(1.0,'x y')")
DEFAULTS = dict(NAME='pod', ZONE='here-a', ACCELERATOR='v5litepod-16', WORKDIR=WORKDIR)
DEFAULTS |= dict(POLL_SECONDS='0.2', TIMEOUT='20', ATTEMPTS='3', MIN_FREE_GB='0')


class Cloud:
  """The folder, and the script that is tested."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.environment = os.environ | fake_cloud.install(folder)

  def script(self, *arguments: str, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
      ['bash', SCRIPT, *arguments],
      env=self.variables(variables),
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  def in_terminal(self, *arguments: str, **variables: str) -> tuple[int, int]:
    """Process id, and its terminal: text that is written there arrives as keys."""
    pid, terminal = pty.fork()
    if not pid:
      # Tests in the background ignore it, and so would their processes.
      signal.signal(signal.SIGINT, signal.SIG_DFL)
      os.execvpe('bash', ['bash', SCRIPT, *arguments], self.variables(variables))
    return pid, terminal

  def variables(self, chosen: dict[str, str]) -> dict[str, str]:
    return self.environment | {k: v for k, v in (DEFAULTS | chosen).items() if v is not None}

  def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
    """Returns exit code and output."""
    process = self.script(*arguments, **variables)
    text = process.communicate(timeout=100)[0]
    return process.returncode, text

  def wait_for(self, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
      assert time.monotonic() < deadline
      time.sleep(0.02)

  def calls(self, part: str = '') -> list[str]:
    path = self.folder / 'calls'
    lines = path.read_text().splitlines() if path.exists() else []
    return [text for line in lines if part in (text := ' '.join(json.loads(line)))]

  def rules(self, *rules: dict) -> None:
    (self.folder / 'rules.json').write_text(json.dumps(rules))

  def troubles(self, *troubles: dict) -> None:
    (self.folder / 'trainer.json').write_text(json.dumps(troubles))

  def pace(self, seconds: float) -> None:
    (self.folder / 'pace').write_text(str(seconds))

  def is_followed(self) -> bool:
    """Returns whether a `tail` of a log of this cloud runs."""
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
      with contextlib.suppress(OSError):  # it has ended since
        command = path.read_bytes()
        if command.startswith(b'tail') and bytes(self.folder) in command:
          return True
    return False

  def log(self, worker: int = 0) -> str:
    return (self.folder / 'workers' / str(worker) / 'hvae_run' / 'log.txt').read_text()

  def steps(self) -> list[int]:
    folder = self.folder / 'buckets' / 'bucket' / 'runs' / 'a' / 'checkpoints'
    return sorted(int(path.name) for path in folder.glob('*'))
