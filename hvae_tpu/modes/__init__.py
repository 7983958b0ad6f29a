"""The command-line modes by name: modules with `run(config, workdir, checkpoint) -> exit code`."""

from hvae_tpu.modes import evaluate, replay, reset, sample, train

MODES = {'train': train, 'eval': evaluate, 'sample': sample, 'reset': reset, 'replay': replay}
