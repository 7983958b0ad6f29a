"""The command-line modes by name: modules with `run(config, workdir, checkpoint) -> exit code`."""

from hvae_tpu.modes import (
  decode,
  disentangle,
  div_stats,
  encode,
  evaluate,
  geco_target,
  open_loop,
  plan,
  reconstruct,
  replay,
  reset,
  sample,
  segment,
  train,
  traverse,
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
  'segment': segment,
  'disentangle': disentangle,
  'traverse': traverse,
  'geco_target': geco_target,
  'plan': plan,
  'replay': replay,
  'reset': reset,
}
