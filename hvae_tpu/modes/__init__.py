"""The command-line modes by name: modules with `run(config, workdir, checkpoint) -> exit code`."""

from hvae_tpu.modes import (
  decode,
  div_stats,
  encode,
  evaluate,
  open_loop,
  plan,
  reconstruct,
  replay,
  reset,
  sample,
  train,
)

MODES = {
  'train': train,
  'eval': evaluate,
  'sample': sample,
  'div_stats': div_stats,
  'reconstruct': reconstruct,
  'encode': encode,
  'decode': decode,
  'open_loop': open_loop,
  'plan': plan,
  'replay': replay,
  'reset': reset,
}
