"""Host time of each training step, on one process or several.

    for n in 1 2 4; do
      python launch/processes.py --num=$n --devices=$((4 / n)) \\
        --module=hvae_tpu.planning.benchmarks.scaling -- \\
        --config=configs/demo_mnist.py:vdvae,debug --workdir=/tmp/scaling-$n
    done

The global batch stays the same, so on one machine a step computes the same with any number of
processes; only the cost of their coordination grows. All parts except `compute` are host work, and
can be compared with the time of a step on an accelerator.
"""

from collections.abc import Callable
import sys
import time
from typing import Any

from absl import flags

from hvae_tpu import commands, main

STEPS = flags.DEFINE_integer('steps', 50, 'Steps to measure.')


class Stopwatch:
  """Collects times by name: `with stopwatch('input'): ...`."""

  def __init__(self):
    self.times: dict[str, list[float]] = {}

  def __call__(self, name: str) -> 'Stopwatch':
    self._name = name
    return self

  def __enter__(self) -> None:
    self._began = time.perf_counter()

  def __exit__(self, *_) -> None:
    self.times.setdefault(self._name, []).append(time.perf_counter() - self._began)


def measure(config: Any, workdir: Any, steps: int) -> dict[str, list[float]]:
  """Trains `steps` steps, each of them logged and the last one saved.

  Returns:
    Seconds, by part: `input`, until the next batch is on the devices; `dispatch`, until the step is
    enqueued; `compute`, until it is done; `log`, to write metrics; `save`, for which a checkpoint
    blocks the loop; `write`, until the checkpoint is complete.

  Raises:
    UserError: `workdir` has checkpoints.
  """
  import jax

  from hvae_tpu.devices import distributed, sharding
  from hvae_tpu.errors import UserError
  from hvae_tpu.runs.checkpoints import Checkpoints
  from hvae_tpu.runs.metric_writer import Writer
  from hvae_tpu.training import setup
  from hvae_tpu.training.metrics_log import summarize
  from hvae_tpu.training.state import create_state
  from hvae_tpu.training.step import trace_step

  if (workdir / 'checkpoints').exists():
    raise UserError(f'--workdir={workdir} has checkpoints already; give a new folder')
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, spatial=config.mesh.spatial)
  sharding.check_batch_size(config.train.batch_size, mesh)
  model, tx, step = setup.train_step(config, mesh)
  dataset = setup.open_data(config)
  batches = setup.train_batches(dataset, config, mesh, 0)
  batch = next(batches)
  state = create_state(model, tx, batch, mesh, config.train.ema_decay is not None, config.seed)
  distributed.meet('no folder is written before all have looked')
  step = trace_step(step, state, batch).lower().compile()
  distributed.meet('compiled')
  writer = Writer(workdir / 'train', active=jax.process_index() == 0, level_names=model.level_names)
  checkpoints = Checkpoints(workdir)
  clock = Stopwatch()
  try:
    state, _ = jax.block_until_ready(step(state, batch))
    writer.flush()  # waits until its thread has imported its modules
    meta = {'config': {}, 'card': dataset.card, 'metrics': {}}
    checkpoints.save(1, state, meta)  # the first one compiles the checksums
    checkpoints.wait()
    for number in range(2, steps + 2):
      with clock('input'):
        batch = next(batches)
      with clock('dispatch'):
        state, metrics = step(state, batch)
      with clock('compute'):
        jax.block_until_ready(state)
      with clock('log'):
        writer.scalars(number, 'train', summarize([jax.device_get(metrics)]))
    with clock('save'):
      checkpoints.save(number, state, meta)
    with clock('write'):
      checkpoints.wait()
  finally:
    batches.close()
    checkpoints.close()
    writer.close()
  return clock.times


def report(times: dict[str, list[float]], print_line: Callable[[str], None]) -> None:
  """Prints the median and the 90th percentile of each part, in milliseconds."""
  import jax
  import numpy as np

  print_line(f'{jax.process_count()} processes, {jax.device_count()} devices')
  for name, seconds in times.items():
    median, high = np.percentile(np.array(seconds) * 1e3, [50, 90])
    print_line(f'  {name:9} median {median:8.2f} ms   90 % within {high:8.2f} ms')


def _run() -> int:
  """Measures and prints; returns the exit code."""
  import jax

  from hvae_tpu.devices import distributed
  from hvae_tpu.errors import UserError
  from hvae_tpu.storage import buckets

  config = commands.CONFIG.value
  if STEPS.value < 1:
    raise UserError(f'--steps={STEPS.value} must be at least 1')
  heartbeat = config.train.heartbeat_seconds
  distributed.start(
    main.COORDINATOR.value, main.NUM_PROCESSES.value, main.PROCESS_ID.value, heartbeat
  )
  with distributed.leaving_together(heartbeat):
    times = measure(config, buckets.as_path(commands.WORKDIR.value), STEPS.value)
    if jax.process_index() == 0:
      report(times, print)
  return 0


def _check() -> None:
  if commands.CONFIG.value is None or not commands.WORKDIR.value:
    raise ValueError('--config=configs/<data set>.py and --workdir=DIR (a new folder) are needed')


if __name__ == '__main__':
  sys.exit(commands.run(sys.argv, _check, _run))
