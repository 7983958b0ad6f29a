"""Kills a training at random moments and proves that nothing was lost.

    python -m tests.drill --kills=30 --seed=0

A small run is started, killed (`kill -9` or SIGTERM; every third time in the middle of a save) and
started again, until it has been killed as often as asked and is finished. Its final state must then
equal, bit for bit, that of a run which nobody disturbed.
"""

import argparse
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLAGS = (
  '--config=configs/demo_mnist.py:vdvae,debug',
  '--config.model.enc_blocks=32d32,1x1',
  '--config.model.dec_blocks=1x1,32m1',
  '--config.train.log_every=1',
  '--config.train.save_every=7',
  '--config.evals.elbo.every=50',
  '--config.evals.pictures.every=0',
)


def start(workdir: pathlib.Path, num_steps: int) -> subprocess.Popen:
  log = (workdir.parent / f'{workdir.name}.txt').open('a')
  command = [sys.executable, '-m', 'hvae_tpu.main', *FLAGS, f'--workdir={workdir}']
  return subprocess.Popen(
    [*command, f'--config.train.num_steps={num_steps}'],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    stdout=log,
    stderr=subprocess.STDOUT,
  )


def wait_for_save(process: subprocess.Popen, workdir: pathlib.Path, limit: float) -> bool:
  """Until a save is in progress; False if there was none."""
  deadline = time.monotonic() + limit
  while process.poll() is None and time.monotonic() < deadline:
    if any('tmp' in path.name for path in (workdir / 'checkpoints').glob('*')):
      return True
    time.sleep(0.001)
  return False


def final_state(workdir: pathlib.Path) -> dict[str, np.ndarray]:
  from hvae_tpu import sharding
  from hvae_tpu.checkpoints import Checkpoints

  store = Checkpoints(workdir, read_only=True)
  fields = ('params', 'ema_params', 'opt_state')
  mesh = sharding.make_mesh(1, 1)
  step = store.resolve('latest')
  state = {f: store.restore_named(step, f, mesh) for f in fields}
  store.close()
  return {f'{step}/{f}/{name}': array for f in fields for name, array in state[f].items()}


def drill(kills: int, seed: int, folder: pathlib.Path) -> int:
  """Returns how many of the kills hit a save."""
  rng = random.Random(seed)
  pieces, saves = folder / 'pieces', 0
  for i in range(kills):
    process = start(pieces, 10**9)  # never ends by itself
    how = rng.choice([signal.SIGKILL, signal.SIGTERM])
    during_save = i % 3 == 0
    if during_save:
      how = signal.SIGKILL
      hit = wait_for_save(process, pieces, 60)
      saves += hit
    else:
      time.sleep(rng.uniform(0.5, 12))
    process.send_signal(how)
    code = process.wait(120)
    print(
      f'kill {i + 1}: {how.name}{" during a save" if during_save else ""}, code {code}', flush=True
    )
  steps = [int(p.name) for p in (pieces / 'checkpoints').iterdir() if p.name.isdigit()]
  end = max(steps, default=0) + 10
  assert start(pieces, end).wait(300) == 0
  assert start(folder / 'whole', end).wait(600) == 0
  found, expected = final_state(pieces), final_state(folder / 'whole')
  assert found.keys() == expected.keys()
  for name in expected:
    np.testing.assert_array_equal(found[name], expected[name], err_msg=name, strict=True)
  print(f'{kills} kills, {saves} during a save; {end} steps: the final state is bitwise equal')
  return saves


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--kills', type=int, default=5)
  parser.add_argument('--seed', type=int, default=0)
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    drill(options.kills, options.seed, pathlib.Path(folder))


if __name__ == '__main__':
  main()
