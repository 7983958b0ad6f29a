"""The command-line modes by name: modules with `run(config, workdir, checkpoint) -> exit code`."""

from hvae_tpu.modes import evaluate, open_loop, replay, reset, sample, train

MODES = {
  'train': train,
  'eval': evaluate,
  'sample': sample,
  'open_loop': open_loop,
  'reset': reset,
  'replay': replay,
}
